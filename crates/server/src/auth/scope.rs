//! What tokens are good for.

wicketgate_model::text_enum!(
    /// What a caller may do. No scope contains another one.
    Scope { Read = "frontdoor.read", Write = "frontdoor.write", Admin = "frontdoor.admin" }
);

impl Scope {
    /// Those among the names; others belong to other programs.
    pub(super) fn among<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Self> {
        names.filter_map(|name| name.parse().ok()).collect()
    }
}
