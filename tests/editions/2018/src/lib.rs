//! Nothing: this package runs the tests of the attribute under edition 2018.
