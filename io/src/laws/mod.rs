//! The contracts of the traits, as tests that run on every implementation.
