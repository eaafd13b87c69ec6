//! Types have unique names.

use std::collections::BTreeMap;

use crate::debt::NAMES;
use crate::source::{Mentions, Scope, Source, sources};

/// A public type's name identifies it in every crate of the workspace.
#[test]
fn no_two_public_types_of_the_workspace_share_a_name() {
    assert_unique(|_, scope| (scope == Scope::Public).then(String::new));
}

/// A type's name identifies it in every file of its crate.
#[test]
fn no_two_types_of_a_crate_share_a_name_unless_one_is_private() {
    assert_unique(|source, scope| (scope != Scope::Private).then(|| source.krate.clone()));
}

/// Checks that names are unique in each group. `group` returns a type's group, or `None` if its name is not checked.
fn assert_unique(group: impl Fn(&Source, Scope) -> Option<String>) {
    let mut types: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for source in sources() {
        for item in Mentions::of(&source).items.into_iter().filter(|item| item.is_type) {
            if let Some(group) = group(&source, item.scope) {
                types.entry((group, item.name)).or_default().push(source.path.clone());
            }
        }
    }
    assert!(types.len() > 100, "too few types: the sources were not read");
    types.retain(|(_, name), places| places.len() > 1 && !NAMES.contains(&&**name));
    assert!(types.is_empty(), "several types have the same name: {types:#?}");
}
