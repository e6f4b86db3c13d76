//! What must not compile, and what the compiler then says: nobody but the manager sets a state or a property, and what is
//! no model, no files and no policy is told what it lacks.

#[test]
fn what_must_not_compile_does_not_and_says_why() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
