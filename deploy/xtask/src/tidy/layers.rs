//! The layer table of `ARCHITECTURE.md` against the manifests: which crates there are, in which order, what each may
//! import, and how the dependencies of others are pinned. It knows nothing of sources.

use super::table_rows;
use crate::process::{self, Failure};
use std::path::Path;
use toml::{Table, Value};

/// The table, bottom to top.
pub(super) struct Layers {
    crates: Vec<Crate>,
}

/// One row.
pub(super) struct Crate {
    pub(super) layer: u8,
    pub(super) name: String,
    pub(super) folder: String,
    pub(super) imports: Vec<String>,
}

impl Layers {
    /// Reads the table; a row that cannot be read is left out and missed by the checks below.
    pub(super) fn parse(architecture: &str) -> Layers {
        let crates = table_rows(architecture, "layers")
            .into_iter()
            .filter_map(|row| {
                let [layer, name, folder, imports, ..] = <[String; 5]>::try_from(row).ok()?;
                let imports = imports.split(',').map(|one| one.trim().to_owned());
                Some(Crate {
                    layer: layer.parse().ok()?,
                    name,
                    folder,
                    imports: imports.filter(|one| one != "–" && !one.is_empty()).collect(),
                })
            })
            .collect();
        Layers { crates }
    }

    /// The rows.
    pub(super) fn crates(&self) -> &[Crate] {
        &self.crates
    }

    /// Compares the table with the manifests below `root`.
    pub(super) fn check(&self, root: &Path) -> Result<Vec<String>, Failure> {
        let text = process::read(&root.join("Cargo.toml"))?;
        let manifest = parse(&text, "Cargo.toml")?;
        let mut findings = self.check_table();
        findings.extend(self.check_members(&manifest));
        findings.extend(check_pins(&text, &manifest));
        for one in &self.crates {
            let name = format!("{}/Cargo.toml", one.folder);
            let manifest = parse(&process::read(&root.join(&name))?, &name)?;
            findings.extend(self.check_manifest(one, &manifest));
        }
        Ok(findings)
    }

    /// The table itself: imports name crates of rows above, and layers only rise.
    fn check_table(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (n, one) in self.crates.iter().enumerate() {
            if n > 0 && self.crates[n - 1].layer > one.layer {
                findings.push(format!("ARCHITECTURE.md: {} stands below a crate of a higher layer", one.name));
            }
            for import in &one.imports {
                if !self
                    .crates
                    .iter()
                    .any(|lower| lower.name == *import && lower.layer <= one.layer && lower.name != one.name)
                {
                    findings.push(format!("ARCHITECTURE.md: {} may not import {import}: not a lower crate", one.name));
                }
            }
        }
        findings
    }

    /// The workspace's members are the table's folders, in the same order of layers.
    fn check_members(&self, manifest: &Table) -> Vec<String> {
        let members: Vec<&str> = manifest["workspace"]["members"]
            .as_array()
            .map(|list| list.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let folders: Vec<&str> = self.crates.iter().map(|one| one.folder.as_str()).collect();
        if members == folders {
            return Vec::new();
        }
        vec![format!(
            "Cargo.toml: the members are not the layer table of ARCHITECTURE.md\n  members: {}\n  table:   {}",
            members.join(" "),
            folders.join(" ")
        )]
    }

    /// One crate: imports as the table allows, versions and lints from the workspace.
    fn check_manifest(&self, one: &Crate, manifest: &Table) -> Vec<String> {
        let mut findings = Vec::new();
        let place = format!("{}/Cargo.toml", one.folder);
        if manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str) != Some(&one.name) {
            findings.push(format!("{place}: the crate is not called {}", one.name));
        }
        let inherits =
            |value: Option<&Value>| value.and_then(|value| value.get("workspace")) == Some(&Value::Boolean(true));
        if !inherits(manifest.get("lints")) {
            findings.push(format!("{place}: the workspace's lints are not taken over"));
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(Value::as_table) else { continue };
            for (name, value) in dependencies {
                if !inherits(Some(value)) {
                    findings.push(format!("{place}: {name} is not taken from the workspace"));
                }
                let ours = self.crates.iter().any(|other| other.name == *name);
                if ours && !one.imports.contains(name) {
                    findings.push(format!("{place}: {} may not import {name} ({section})", one.name));
                }
            }
        }
        findings
    }
}

/// Every dependency of others is pinned to one version, and its line says what it is for.
fn check_pins(text: &str, manifest: &Table) -> Vec<String> {
    let mut findings = Vec::new();
    let dependencies = manifest["workspace"].get("dependencies").and_then(Value::as_table);
    for (name, value) in dependencies.into_iter().flatten() {
        if value.get("path").is_some() {
            continue;
        }
        let version = value.as_str().or_else(|| value.get("version").and_then(Value::as_str)).unwrap_or_default();
        if !version.starts_with('=') {
            findings.push(format!("Cargo.toml: {name} is not pinned to one version (\"={version}\")"));
        }
        let line = text.lines().find(|line| line.split(['=', ' ']).next() == Some(name.as_str())).unwrap_or_default();
        if line.split_once('#').is_none_or(|(_, reason)| reason.trim().len() < 5) {
            findings.push(format!("Cargo.toml: the line of {name} does not say what it is for"));
        }
    }
    findings
}

fn parse(text: &str, place: &str) -> Result<Table, Failure> {
    text.parse().map_err(|error| Failure::found(format!("{place}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Layers {
        Layers::parse(
            "<!-- layers: begin -->\n| layer | crate | folder | may import | what |\n|---|---|---|---|---|\n\
             | 0 | `base` | appliance/base | – | x |\n| 1 | `ports` | reactors/ports | `base` | x |\n\
             | 2 | `engine` | appliance/engine | `base`, `ports` | x |\n<!-- layers: end -->",
        )
    }

    fn findings(folder_row: usize, manifest: &str) -> Vec<String> {
        let layers = layers();
        layers.check_manifest(&layers.crates[folder_row], &manifest.parse().unwrap())
    }

    #[test]
    fn the_table_is_read() {
        let layers = layers();
        assert_eq!(layers.crates().len(), 3);
        assert_eq!(layers.crates()[2].imports, ["base", "ports"]);
        assert!(layers.crates()[0].imports.is_empty());
        assert!(layers.check_table().is_empty());
    }

    #[test]
    fn an_import_that_points_up_is_found() {
        let good = "[package]\nname = \"ports\"\n[dependencies]\nbase.workspace = true\n[lints]\nworkspace = true";
        assert!(findings(1, good).is_empty());
        let bad = good.replace("base.workspace", "engine.workspace");
        assert_eq!(findings(1, &bad), ["reactors/ports/Cargo.toml: ports may not import engine (dependencies)"]);
        let hidden = good.replace("[dependencies]", "[dev-dependencies]\nengine.workspace = true\n[dependencies]");
        assert_eq!(findings(1, &hidden).len(), 1, "imports of tests count");
    }

    #[test]
    fn a_version_of_ones_own_and_missing_lints_are_found() {
        let manifest = "[package]\nname = \"engine\"\n[dependencies]\nserde = \"1\"";
        assert_eq!(findings(2, manifest).len(), 2);
    }

    #[test]
    fn a_table_that_contradicts_itself_is_found() {
        let mut layers = layers();
        layers.crates[1].imports = vec!["engine".to_owned()];
        assert_eq!(layers.check_table().len(), 1);
        layers.crates[1].layer = 3;
        assert_eq!(layers.check_table().len(), 2);
    }

    #[test]
    fn members_in_another_order_are_found() {
        let manifest = "[workspace]\nmembers = [\"reactors/ports\", \"appliance/base\", \"appliance/engine\"]";
        assert_eq!(layers().check_members(&manifest.parse().unwrap()).len(), 1);
    }

    #[test]
    fn loose_and_unexplained_dependencies_are_found() {
        let text = "[workspace.dependencies]\nours = { path = \"x\" }\na = \"=1.0.0\" # what it is for\nb = \"1.0\" # a reason\nc = { version = \"=2\" }\n";
        let found = check_pins(text, &text.parse().unwrap());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("b is not pinned") && found[1].contains("line of c"), "{found:?}");
    }
}
