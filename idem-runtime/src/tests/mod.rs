//! Tests of more than one file. The tests of one file are in that file.

mod properties;
