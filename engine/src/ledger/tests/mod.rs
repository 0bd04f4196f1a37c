//! Ledgers against a model.
