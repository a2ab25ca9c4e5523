//! Checks that misuse does not compile and that its error says what to write.

#[test]
fn compile_errors() {
    // Without programs that compile, trybuild checks the dependencies and does not build them.
    trybuild::TestCases::new().compile_fail("fail/*.rs");
}
