//! An empty library. This package runs the tests of the attribute in edition 2018.
