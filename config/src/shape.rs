//! The tree against the JSON Schema: unknown, missing, repeated and ill-typed fields, each reported at its place. The schema
//! is the one made from the structures, so that form is declared once. It understands what that generator writes (types,
//! properties, alternatives, constants, bounds, references), not every schema there could be.

use serde_json::Value as Json;

use crate::export::json_schema;
use crate::problem::Problems;
use crate::tree::{Node, Value};
use crate::values::format;

/// Reports what in the tree is not as the schema has it.
pub(crate) fn check(root: &Node, problems: &mut Problems<'_>) {
    let schema = json_schema();
    Checker { schema, problems }.node(root, schema, "");
}

struct Checker<'a, 'p, 't> {
    schema: &'a Json,
    problems: &'p mut Problems<'t>,
}

impl<'a> Checker<'a, '_, '_> {
    fn node(&mut self, node: &Node, schema: &'a Json, path: &str) {
        let alternatives = self.alternatives(schema);
        if alternatives.iter().any(|schema| schema.get("const").is_some_and(|word| is_constant(node, word))) {
            return;
        }
        let fitting: Vec<_> = alternatives.iter().filter(|schema| has_type(node, schema)).copied().collect();
        match (&node.value, fitting.as_slice()) {
            (Value::Map(_), [schema]) => self.map(node, schema, path),
            (Value::Map(_), [_, _, ..]) => self.tagged_map(node, &fitting, path),
            (Value::List(items), [schema, ..]) => self.list(node, items, schema, path),
            (Value::Text(text), [_, ..]) => self.text(node, text, &fitting, path),
            (Value::Integer(number), [schema, ..]) => self.number(node, *number, schema, path),
            (_, []) => {
                let message = format!("this is {}", kind_of(&node.value));
                self.problems.error(node, path, message, self.describe(&alternatives));
            }
            (Value::Null | Value::Bool(_) | Value::Float(_), _) => {}
        }
    }

    fn map(&mut self, node: &Node, schema: &'a Json, path: &str) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let property = |name: &str| properties.and_then(|all| all.get(name));
        let known = || quoted(properties.into_iter().flat_map(|all| all.keys()).map(String::as_str));
        let mut seen: Vec<&str> = Vec::new();
        for (key, value) in node.entries() {
            let Some(name) = key.text() else {
                self.problems.error(key, path, "this key is not a word", format!("one of {}", known()));
                continue;
            };
            let path = join(path, name);
            if seen.contains(&name) {
                self.problems.error(key, &path, "this key comes a second time", "each key once");
                continue;
            }
            seen.push(name);
            match property(name) {
                Some(schema) => self.node(value, schema, &path),
                None => self.problems.error(key, &path, "there is no such key", format!("one of {}", known())),
            }
        }
        for name in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if !seen.contains(&name) {
                let expected = property(name).map_or_else(String::new, |s| self.describe(&self.alternatives(s)));
                self.problems.error(node, path, format!("the key '{name}' is missing"), format!("{name}: {expected}"));
            }
        }
    }

    /// One of several maps, told apart by a key that has another constant in each.
    fn tagged_map(&mut self, node: &Node, variants: &[&'a Json], path: &str) {
        let constant = |schema: &'a Json, key: &str| schema.pointer(&format!("/properties/{key}/const"));
        let keys = variants[0].get("properties").and_then(Json::as_object).into_iter().flat_map(|p| p.keys());
        let Some(tag) = keys.into_iter().find(|key| variants.iter().all(|schema| constant(schema, key).is_some()))
        else {
            return self.map(node, variants[0], path);
        };
        let words = || quoted(variants.iter().filter_map(|schema| constant(schema, tag)?.as_str()));
        match node.get(tag) {
            None => {
                self.problems.error(
                    node,
                    path,
                    format!("the key '{tag}' is missing"),
                    format!("{tag}: one of {}", words()),
                );
            }
            Some(value) => {
                let chosen =
                    variants.iter().find(|schema| constant(schema, tag).is_some_and(|c| is_constant(value, c)));
                match chosen {
                    Some(schema) => self.map(node, schema, path),
                    None => {
                        let message = "this word is not known here";
                        self.problems.error(value, &join(path, tag), message, format!("one of {}", words()));
                    }
                }
            }
        }
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &'a Json, path: &str) {
        let bound = |key: &str| schema.get(key).and_then(Json::as_u64).map(|n| n as usize);
        let (least, most) = (bound("minItems").unwrap_or(0), bound("maxItems").unwrap_or(usize::MAX));
        if items.len() < least || items.len() > most {
            let message = format!("this list has {}", entries(items.len()));
            self.problems.error(node, path, message, self.describe(&[schema]));
        }
        if let Some(schema) = schema.get("items") {
            for (i, item) in items.iter().enumerate() {
                self.node(item, schema, &format!("{path}[{i}]"));
            }
        }
    }

    fn text(&mut self, node: &Node, text: &str, alternatives: &[&'a Json], path: &str) {
        // Texts that are one of some words stand alone in the schema: what has come here is none of them.
        if alternatives.iter().any(|schema| schema.get("const").is_some()) {
            return self.problems.error(node, path, "this word is not known here", self.describe(alternatives));
        }
        let known = alternatives.iter().find_map(|schema| format(schema.get("format")?.as_str()?));
        match known {
            Some((expected, is_valid)) if !is_valid(text) => {
                self.problems.error(node, path, "this cannot be understood", expected);
            }
            Some(_) => {}
            None if text.is_empty() => self.problems.error(node, path, "this is empty", "some text"),
            None => {}
        }
    }

    fn number(&mut self, node: &Node, number: i128, schema: &'a Json, path: &str) {
        let bound = |key: &str| schema.get(key).and_then(Json::as_i64).map(i128::from);
        let fits = bound("minimum").is_none_or(|least| least <= number)
            && bound("maximum").is_none_or(|most| number <= most)
            && schema.get("const").is_none_or(|constant| is_constant(node, constant));
        if !fits {
            self.problems.error(node, path, "this number does not fit", self.describe(&[schema]));
        }
    }

    /// The schemas of which one must hold, references followed.
    fn alternatives(&self, schema: &'a Json) -> Vec<&'a Json> {
        if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
            let target = reference.strip_prefix('#').and_then(|pointer| self.schema.pointer(pointer));
            return target.map(|schema| self.alternatives(schema)).unwrap_or_default();
        }
        // Draft 7 ignores what stands beside $ref: the generator wraps it to keep a description.
        if let Some([only]) = schema.get("allOf").and_then(Json::as_array).map(Vec::as_slice) {
            return self.alternatives(only);
        }
        match schema.get("oneOf").or(schema.get("anyOf")).and_then(Json::as_array) {
            Some(several) => several.iter().flat_map(|schema| self.alternatives(schema)).collect(),
            None => vec![schema],
        }
    }

    /// What is expected, for people.
    fn describe(&self, alternatives: &[&'a Json]) -> String {
        let mut words: Vec<String> = Vec::new();
        for schema in alternatives {
            let word = match type_of(schema).as_slice() {
                _ if schema.get("const").is_some() => schema["const"].to_string(),
                ["null", ..] => continue,
                ["string", ..] => {
                    let known = schema.get("format").and_then(Json::as_str).and_then(format);
                    known.map_or("a text", |(expected, _)| expected).to_owned()
                }
                ["integer", ..] => match (schema.get("minimum"), schema.get("maximum")) {
                    (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
                    _ => "a whole number".to_owned(),
                },
                ["array", ..] => {
                    let each = schema.get("items").map(|items| self.describe(&self.alternatives(items)));
                    let each = each.unwrap_or_else(|| "anything".to_owned());
                    match (schema.get("minItems"), schema.get("maxItems")) {
                        (Some(least), Some(most)) => format!("a list of {least} to {most} entries, each {each}"),
                        (Some(least), None) => format!("a list of at least {least}, each {each}"),
                        _ => format!("a list, each {each}"),
                    }
                }
                ["object", ..] => {
                    let keys = schema.get("properties").and_then(Json::as_object).into_iter().flat_map(|p| p.keys());
                    format!("a mapping of {}", quoted(keys.map(String::as_str)))
                }
                _ => "something else".to_owned(),
            };
            words.push(word);
        }
        words.join(", or ")
    }
}

fn type_of(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

fn has_type(node: &Node, schema: &Json) -> bool {
    let wanted = match &node.value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Integer(_) => "integer",
        Value::Float(_) => "number",
        Value::Text(_) => "string",
        Value::List(_) => "array",
        Value::Map(_) => "object",
    };
    type_of(schema).contains(&wanted)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Integer(_) => "a bare number",
        Value::Float(_) => "a number with a fraction",
        Value::Text(_) => "a text",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}

fn is_constant(node: &Node, constant: &Json) -> bool {
    match (&node.value, constant) {
        (Value::Text(text), Json::String(word)) => text == word,
        (Value::Integer(number), Json::Number(constant)) => constant.as_i64().map(i128::from) == Some(*number),
        _ => false,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn quoted<'w>(words: impl Iterator<Item = &'w str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn entries(count: usize) -> String {
    match count {
        1 => "1 entry".to_owned(),
        n => format!("{n} entries"),
    }
}

#[cfg(test)]
mod tests {
    use crate::{DEMO, parse};

    /// The problems of the demo with one text in place of another: (line, path, message and expectation).
    fn problems(from: &str, to: &str) -> Vec<(String, String)> {
        assert!(DEMO.contains(from), "{from}");
        let problems = parse(&DEMO.replacen(from, to, 1), "demo.yaml").unwrap_err();
        problems.into_iter().map(|p| (p.path, format!("{} / {}", p.message, p.expected))).collect()
    }

    #[test]
    fn each_fault_of_form_is_named_with_what_was_expected() {
        let cases = [
            ("version: 1", "version: 2", "version", "does not fit / 1"),
            ("version: 1\n", "", "", "'version' is missing / version: 1"),
            ("name: demo", "name: [demo]", "name", "a list / a name of 1 to 32"),
            ("name: demo", "name: demo\nname: demo", "name", "a second time"),
            ("name: demo", "name: demo\nnom: demo", "nom", "no such key / one of"),
            ("name: demo", "name: demo\n7: demo", "", "not a word"),
            ("polling: adaptive", "polling: lazy", "reactors.polling", "/ \"busy\", or \"adaptive\""),
            ("polling: adaptive", "polling: 3", "reactors.polling", "a bare number / \"busy\", or"),
            ("memory: 256MiB", "memory: 256", "reactors.memory", "a bare number / a size with a unit"),
            ("memory: 256MiB", "memory: 256MB", "reactors.memory", "cannot be understood / a size with a unit"),
            ("count: 1", "count: 0", "reactors.count", "/ a whole number from 1 to 64"),
            ("count: 1", "count: 1.5", "reactors.count", "with a fraction / a whole number"),
            ("kind: file, ", "", "devices[0]", "'kind' is missing / kind: one of file, block, ram"),
            ("kind: file, ", "kind: tape, ", "devices[0].kind", "/ one of file, block, ram"),
            ("hosts: any", "hosts: all", "subsystems[0].hosts", "/ \"any\""),
            ("hosts: any", "hosts: [x]", "subsystems[0].hosts[0]", "/ an NVMe qualified name"),
            ("[d0, d1, d2]", "[]", "arrays[0].members", "0 entries / a list of 1 to 32"),
            ("nsid: 1", "nsid: 4294967295", "subsystems[0].namespaces[0].nsid", "from 1 to 1024"),
        ];
        for (from, to, path, words) in cases {
            let found = problems(from, to);
            let hit = found.iter().any(|(p, m)| p == path && m.contains(words));
            assert!(hit, "{from} -> {to} should give {path}: {words}; it gives {found:#?}");
        }
    }

    #[test]
    fn all_faults_of_a_file_come_together_in_its_order() {
        let text = "version: one\ndevices:\n  - {name: d0, kind: ram, size: 5, path: x}\n  - 7\ncolour: red\n";
        let found = parse(text, "f.yaml").unwrap_err();
        let lines: Vec<_> = found.iter().map(|p| p.line).collect();
        assert!(lines.is_sorted(), "{found:#?}");
        for path in ["version", "devices[0].size", "devices[0].path", "devices[1]", "colour"] {
            assert_eq!(found.iter().filter(|p| p.path == path).count(), 1, "{path}: {found:#?}");
        }
        let missing = found.iter().filter(|p| p.message.contains("is missing")).count();
        assert_eq!(missing, 4, "name, arrays, listeners, subsystems: {found:#?}");
        assert_eq!(found[0].to_string().lines().count(), 1);
    }

    #[test]
    fn an_empty_file_is_a_problem() {
        for text in ["", "# nothing\n", "[]", "7", "~"] {
            assert_eq!(parse(text, "f.yaml").unwrap_err().len(), 1, "{text:?}");
        }
    }
}
