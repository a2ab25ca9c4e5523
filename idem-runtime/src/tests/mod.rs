//! Tests of several files together. Tests of a single file are in the same file.

mod properties;
