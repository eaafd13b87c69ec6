//! Lists the files in `console/dist`, which `make console` builds. Without them, the list is empty.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    let here = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let built = Path::new(&here).join("../../console/dist");
    println!("cargo::rerun-if-changed={}", built.display());
    let mut names = Vec::new();
    for folder in ["", "assets/"] {
        let Ok(files) = fs::read_dir(built.join(folder)) else { continue };
        for file in files {
            let name = format!("{folder}{}", file?.file_name().display());
            names.extend(name.strip_suffix(".gz").map(str::to_owned));
        }
    }
    names.sort();
    let mut list = "&[\n".to_owned();
    for name in names {
        let path = built.join(format!("{name}.gz"));
        list += &format!("    File {{ name: {name:?}, gzip: include_bytes!({path:?}) }},\n");
    }
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("files.rs"), list + "]")
}
