//! Builds anew what contains the migrations when there is a new one: cargo knows only the files that it has seen.

#[expect(clippy::print_stdout, reason = "how a build script talks to cargo")]
fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
