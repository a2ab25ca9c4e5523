//! Correct use of the attribute. Each program compiles without a warning.

pub mod imports_of_the_signature;
pub mod lints;
pub mod names_of_body_extractors;
pub mod names_of_the_operation;
pub mod readme;
pub mod written_by_a_macro;
