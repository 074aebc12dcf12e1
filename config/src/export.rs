//! What is made from the structures for others to read: the JSON Schema (draft-07, which editors' YAML support understands)
//! and the reference documentation.

use std::fmt::Write as _;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

use crate::schema::Config;

/// The JSON Schema of a configuration.
pub fn json_schema() -> &'static Json {
    static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
        let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Config>();
        schema.insert("title".to_owned(), "Brindle configuration".into());
        schema.into()
    });
    &SCHEMA
}

/// The JSON Schema as it is published: indented, with a line end.
pub fn json_schema_text() -> String {
    format!("{:#}\n", json_schema())
}

/// The reference documentation in Markdown: a table for each mapping, in the order in which one meets them.
pub fn reference() -> String {
    let schema = json_schema();
    let mut reference = Reference { schema, text: String::new(), waiting: Vec::new(), done: Vec::new() };
    reference.mapping("The file", "", schema, None);
    while !reference.waiting.is_empty() {
        let (path, schema) = reference.waiting.remove(0);
        reference.section(&path, schema);
    }
    reference.text
}

struct Reference<'a> {
    schema: &'a Json,
    text: String,
    waiting: Vec<(String, &'a Json)>,
    done: Vec<&'a Json>,
}

impl<'a> Reference<'a> {
    fn section(&mut self, path: &str, schema: &'a Json) {
        let variants = schema.get("oneOf").and_then(Json::as_array);
        match variants {
            Some(variants) => {
                for variant in variants {
                    let kind = variant.pointer("/properties/kind/const").and_then(Json::as_str);
                    self.mapping(&format!("`{path}`"), path, variant, kind);
                }
            }
            None => self.mapping(&format!("`{path}`"), path, schema, None),
        }
    }

    fn mapping(&mut self, title: &str, path: &str, schema: &'a Json, kind: Option<&str>) {
        let Some(properties) = schema.get("properties").and_then(Json::as_object) else { return };
        let kind = kind.map_or_else(String::new, |kind| format!(" with `kind: {kind}`"));
        let _ = writeln!(self.text, "#### {title}{kind}\n\n{}\n", description(schema));
        self.text.push_str("| Key | Type | Default | Meaning |\n|---|---|---|---|\n");
        let required: Vec<_> = schema.get("required").and_then(Json::as_array).into_iter().flatten().collect();
        for (key, property) in properties {
            let target = self.target(property);
            let default = match property.get("default") {
                _ if required.iter().any(|name| *name == key) => "required".to_owned(),
                Some(Json::Object(_) | Json::Null) | None => String::new(),
                Some(Json::String(text)) => format!("`{text}`"),
                Some(other) => format!("`{other}`"),
            };
            let words = match kind.is_empty() || key != "kind" {
                true => self.words(target),
                false => "Which kind of these it is.".to_owned(),
            };
            let meaning = [description(property), words].into_iter().filter(|part| !part.is_empty());
            let meaning = meaning.collect::<Vec<_>>().join(" ");
            let _ = writeln!(self.text, "| `{key}` | {} | {default} | {meaning} |", self.kind(target));
            self.visit(path, key, target);
        }
        self.text.push('\n');
    }

    /// Puts the mappings under a key on the list of sections to come.
    fn visit(&mut self, path: &str, key: &str, schema: &'a Json) {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let (path, schema) = match schema.get("items") {
            Some(items) => (format!("{path}[]"), self.target(items)),
            None => (path, schema),
        };
        let is_mapping = |schema: &Json| schema.get("properties").is_some();
        let variants = schema.get("oneOf").and_then(Json::as_array);
        let has_mappings = is_mapping(schema) || variants.is_some_and(|all| all.iter().any(is_mapping));
        if has_mappings && !self.done.contains(&schema) {
            self.done.push(schema);
            self.waiting.push((path, schema));
        }
    }

    /// What a schema refers to; of something optional, the something.
    fn target(&self, schema: &'a Json) -> &'a Json {
        if let Some(pointer) = schema.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix('#')) {
            return self.schema.pointer(pointer).unwrap_or(schema);
        }
        if let Some([only]) = schema.get("allOf").and_then(Json::as_array).map(Vec::as_slice) {
            return self.target(only);
        }
        if let Some([some, none]) = schema.get("anyOf").and_then(Json::as_array).map(Vec::as_slice)
            && none.get("type").is_some_and(|kind| kind == "null")
        {
            return self.target(some);
        }
        schema
    }

    fn kind(&self, schema: &'a Json) -> String {
        if let Some(constant) = schema.get("const") {
            return format!("`{}`", bare(constant));
        }
        if let Some(several) = schema.get("oneOf").or(schema.get("anyOf")).and_then(Json::as_array) {
            if several.iter().all(|one| one.get("properties").is_some()) {
                return "mapping".to_owned();
            }
            return several.iter().map(|one| self.kind(self.target(one))).collect::<Vec<_>>().join(" or ");
        }
        let named = match schema.get("type") {
            Some(Json::Array(several)) => several.first().and_then(Json::as_str),
            Some(one) => one.as_str(),
            None => None,
        };
        match named.unwrap_or("") {
            "array" => schema.get("items").map_or("list".to_owned(), |items| {
                let each = self.kind(self.target(items));
                format!("list of {}s", each.split(" (").next().unwrap_or(&each))
            }),
            "object" => "mapping".to_owned(),
            "integer" => match (schema.get("minimum"), schema.get("maximum")) {
                (Some(least), Some(most)) => format!("number ({least} to {most})"),
                _ => "number".to_owned(),
            },
            "string" => match schema.get("format").and_then(Json::as_str) {
                Some(format) => format.replace('-', " ").replace("nqn", "NQN"),
                None => "path".to_owned(),
            },
            other => other.to_owned(),
        }
    }

    /// The words that may stand here, each with its meaning.
    fn words(&self, schema: &'a Json) -> String {
        let variants = schema.get("oneOf").and_then(Json::as_array).into_iter().flatten();
        let words = variants.filter(|one| one.get("properties").is_none());
        let each = words.filter_map(|one| Some(format!("`{}`: {}", bare(one.get("const")?), description(one))));
        each.collect::<Vec<_>>().join(" ")
    }
}

/// The description on one line.
fn description(schema: &Json) -> String {
    let text = schema.get("description").and_then(Json::as_str).unwrap_or("");
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn bare(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_has_not_drifted() {
        let published = include_str!("../brindle.schema.json");
        assert!(published == json_schema_text(), "run: cargo run -p brindle -- schema > config/brindle.schema.json");
    }

    #[test]
    fn the_schema_is_a_schema_and_refuses_unknown_fields_everywhere() {
        let schema = json_schema();
        assert!(jsonschema::meta::is_valid(schema));
        fn walk(schema: &Json, path: &str) {
            if schema.get("properties").is_some_and(Json::is_object) && schema.get("type").is_some() {
                assert_eq!(schema.get("additionalProperties"), Some(&Json::Bool(false)), "{path}");
            }
            match schema {
                Json::Object(fields) => fields.iter().for_each(|(key, value)| walk(value, &format!("{path}/{key}"))),
                Json::Array(items) => {
                    items.iter().enumerate().for_each(|(i, value)| walk(value, &format!("{path}/{i}")))
                }
                _ => {}
            }
        }
        walk(schema, "");
    }

    #[test]
    fn the_reference_names_every_key_with_a_meaning() {
        let text = reference();
        for line in text.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = line.split(" | ").collect();
            assert_eq!(cells.len(), 4, "{line}");
            assert!(!cells[1].is_empty(), "{line}");
            assert!(cells[3].trim_end_matches(" |").ends_with('.'), "{line}");
        }
        for section in ["reactors", "devices[]", "arrays[].log", "arrays[].volumes[]", "subsystems[].namespaces[]"] {
            assert!(text.contains(&format!("#### `{section}`")), "{section} is missing:\n{text}");
        }
        assert!(text.contains("| `spin` | time span | `50us` |"), "{text}");
    }
}
