use super::*;
use crate::api::operations::{OPERATIONS, document};
use std::path::Path;

/// The path of the copy that clients are generated from.
fn copy() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json")
}

/// With `UPDATE_OPENAPI=1`, the test updates the copy.
#[test]
fn the_copy_in_docs_is_up_to_date() {
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(copy(), format!("{:#}\n", document())).unwrap();
    }
    let kept = std::fs::read_to_string(copy()).unwrap_or_default();
    assert!(kept == format!("{:#}\n", document()), "docs/openapi.json is out of date: run `make openapi`");
}

/// The data files repeat limits that the code enforces.
#[test]
fn limits_are_those_of_the_code() {
    use crate::api::wire::{api_account, tunnel::Grace};
    use wicketgate_model::{AllowedSources, EspProposals, IkeProposals};
    let document = document();
    for (pointer, limit) in [
        ("ApiAccountRequest/properties/frontdoorIds/maxItems", api_account::MOST_FRONTDOORS),
        ("ApiAccountRequest/properties/name/maxLength", api_account::LONGEST_NAME),
        ("Agent/properties/shares/maxItems", wicketgate_link::SHARES_PER_AGENT),
        ("IpsecShare/properties/allowedSources/maxItems", AllowedSources::MOST),
        ("IpsecTunnel/properties/espProposals/maxItems", EspProposals::MOST),
        ("IpsecTunnel/properties/ikeProposals/maxItems", IkeProposals::MOST),
        ("PreSharedKeyRequest/properties/graceSeconds/maximum", Grace::MOST_SECONDS.try_into().unwrap()),
    ] {
        let value = document.pointer(&format!("/components/schemas/{pointer}"));
        assert_eq!(value, Some(&Value::from(limit)), "{pointer}");
    }
}

/// Closed lists and parts of patterns that data files name.
#[test]
fn every_name_in_the_data_files_is_filled_in() {
    let text = document().to_string();
    let named = names_in(&text);
    assert!(named.is_empty(), "{named:?}");
}

/// Texts like `<OCTET>` or `<Reason>`; messages have `<id>`, which is a placeholder for readers.
fn names_in(text: &str) -> Vec<&str> {
    let parts = text.split('<').skip(1).filter_map(|rest| rest.split_once('>').map(|(name, _)| name));
    let is_name = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    parts.filter(is_name).collect()
}

#[test]
fn every_reference_resolves() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                object.values().for_each(|v| walk(v, document));
            }
            Value::Array(values) => values.iter().for_each(|v| walk(v, document)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
    let mut ids: Vec<_> = OPERATIONS.iter().map(|o| o.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), OPERATIONS.len());
}

#[test]
fn every_column_of_a_list_is_a_property() {
    use crate::api::wire;
    use wicketgate_store::{Column, column};
    type Table<'a> = (&'a [Property], Vec<&'a Column>);
    let tables: [Table<'_>; 8] = [
        (wire::share::PROPERTIES, column::share::ALL.to_vec()),
        (wire::tunnel::PROPERTIES, [column::tunnel::ALL, column::connection::ALL].concat()),
        (wire::connection_change::PROPERTIES, column::connection_change::ALL.to_vec()),
        (wire::environment::PROPERTIES, column::environment::ALL.to_vec()),
        (wire::agent::PROPERTIES, column::agent::ALL.to_vec()),
        (wire::frontdoor::PROPERTIES, column::frontdoor::ALL.to_vec()),
        (wire::execution::PROPERTIES, column::execution::ALL.to_vec()),
        (wire::api_account::PROPERTIES, column::api_account::ALL.to_vec()),
    ];
    for (properties, columns) in tables {
        for column in columns {
            assert_eq!(properties.iter().filter(|p| p.column == Some(column)).count(), 1, "{column}");
        }
    }
}

#[test]
fn nested_properties_are_parts_of_described_ones() {
    let document = document();
    for operation in OPERATIONS {
        let Parameters::List(properties) = operation.parameters else { continue };
        let page = operation.answers[0].1;
        let schema = &document["components"]["schemas"][page.strip_suffix("Page").unwrap()]["properties"];
        for property in properties {
            let outer = property.name.split('.').next().unwrap();
            assert!(schema.get(outer).is_some() || !property.is_shown(), "{page}: {}", property.name);
        }
    }
}
