//! What must not compile: nobody but the manager sets a state or a property, and a foreign type is told what it lacks.

#[test]
fn what_must_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
