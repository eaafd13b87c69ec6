//! One name, one type.

use std::collections::BTreeMap;

use crate::debt::NAMES;
use crate::source::{Mentions, Scope, Source, sources};

/// Whoever reads a name of the workspace knows what it is, whichever crate the text is in.
#[test]
fn no_two_public_types_of_the_workspace_share_a_name() {
    assert_unique(|_, scope| (scope == Scope::Public).then(String::new));
}

/// Files of one crate are read together.
#[test]
fn no_two_types_of_a_crate_share_a_name_unless_one_is_private() {
    assert_unique(|source, scope| (scope != Scope::Private).then(|| source.krate.clone()));
}

/// `group` says with which other types a type is compared, if at all.
fn assert_unique(group: impl Fn(&Source, Scope) -> Option<String>) {
    let mut types: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for source in sources() {
        for item in Mentions::of(&source).items.into_iter().filter(|item| item.is_type) {
            if let Some(group) = group(&source, item.scope) {
                types.entry((group, item.name)).or_default().push(source.path.clone());
            }
        }
    }
    assert!(types.len() > 100, "the sources were not read");
    types.retain(|(_, name), places| places.len() > 1 && !NAMES.contains(&&**name));
    assert!(types.is_empty(), "the same name for several types: {types:#?}");
}
