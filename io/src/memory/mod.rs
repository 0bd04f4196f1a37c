//! The world that a seed can replay.
