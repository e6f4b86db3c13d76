//! Which files have `unsafe` code: those that `docs/reliability.md` names, and no other.

use std::{collections::BTreeSet, fs, path::Path};

/// Adds the files below a folder that expect the lint, as they are named in the docs.
fn collect(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the crate") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if fs::read_to_string(&path).is_ok_and(|text| text.contains("unsafe_code")) {
            let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR"));
            let name = path.expect("below the crate").to_string_lossy();
            found.insert(name.replace('\\', "/"));
        }
    }
}

#[test]
fn unsafe_code_is_where_the_docs_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    collect(&root.join("src"), &mut found);
    let docs = fs::read_to_string(root.join("docs/reliability.md")).expect("the docs");
    let (_, list) = docs.split_once("`unsafe` is denied").expect("the list");
    let named = list.split('`').filter(|name| name.starts_with("src/"));
    assert_eq!(found, named.map(str::to_owned).collect());
}
