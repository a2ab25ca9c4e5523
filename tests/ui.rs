//! Misuse does not compile and says what to write; what is right compiles without a warning.

#[test]
fn compile_errors() {
    let tests = trybuild::TestCases::new();
    tests.pass("tests/ui/pass/*.rs");
    tests.compile_fail("tests/ui/fail/*.rs");
}
