//! What must not compile: nobody but the manager sets a state or a property.

#[test]
fn states_and_properties_cannot_be_written() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
