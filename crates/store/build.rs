//! Builds anew what contains the migrations when there is a new one: cargo knows only the files that it has seen.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
