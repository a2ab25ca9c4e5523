//! Checks that misuse does not compile and that its error says what to write. Correct use compiles
//! without a warning.

#[test]
fn compile_errors() {
    let tests = trybuild::TestCases::new();
    tests.pass("tests/ui/pass/*.rs");
    tests.compile_fail("tests/ui/fail/*.rs");
}
