//! An error quotes its cause, or has it as its source. One that does both is printed with its cause twice.

use syn::visit::{self, Visit};

use crate::source::sources;

#[test]
fn no_error_quotes_its_source() {
    let mut all = Errors::default();
    for source in sources() {
        all.path = source.path;
        all.visit_file(&source.ast);
    }
    assert!(all.count > 20, "too few errors: the sources were not read");
    assert!(all.broken.is_empty(), "quote without #[source] and #[from], or not at all: {:#?}", all.broken);
}

/// The errors of the workspace with a text of their own.
#[derive(Default)]
struct Errors {
    path: String,
    count: usize,
    broken: Vec<String>,
}

impl Errors {
    fn check(&mut self, name: &syn::Ident, attrs: &[syn::Attribute], fields: &syn::Fields) {
        let Some(attr) = attrs.iter().find(|attr| attr.path().is_ident("error")) else { return };
        self.count += 1;
        let text = attr.meta.require_list().unwrap().tokens.to_string();
        for (place, field) in fields.iter().enumerate() {
            let field_name = field.ident.as_ref().map_or_else(|| place.to_string(), ToString::to_string);
            // thiserror takes a field of this name for the source.
            let is_source = field_name == "source"
                || field.attrs.iter().any(|a| a.path().is_ident("source") || a.path().is_ident("from"));
            let is_quoted = ["}", ":"].iter().any(|end| text.contains(&format!("{{{field_name}{end}")));
            if is_source && is_quoted {
                self.broken.push(format!("{}: {name}", self.path));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Errors {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.check(&item.ident, &item.attrs, &item.fields);
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.check(&variant.ident, &variant.attrs, &variant.fields);
        visit::visit_variant(self, variant);
    }
}
