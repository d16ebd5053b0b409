//! The sample, the schema, the reference and the reader agree; no text makes the reader panic.

use super::*;

/// The sample with every commented-out key switched on, one of a pair that exclude each other left off.
fn full_sample() -> String {
    let is_key = |text: &str| {
        text.split_once(" = ").is_some_and(|(key, _)| {
            key.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '-' | '0'..='9'))
        })
    };
    let on = |line: &str| match line.strip_prefix('#') {
        Some(key) if is_key(key) && !key.split(' ').next().is_some_and(|key| key.ends_with("-file")) => {
            key.to_owned()
        }
        _ => line.to_owned(),
    };
    SAMPLE.lines().map(|line| on(line) + "\n").collect()
}

/// Every key that the schema describes, as `service.backend.weight`.
fn keys(schema: &Value, at: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    if let Some(reference) = at["$ref"].as_str() {
        let target = reference.strip_prefix('#').and_then(|pointer| schema.pointer(pointer)).unwrap();
        return keys(schema, target, prefix, found);
    }
    for choice in at["anyOf"].as_array().into_iter().flatten() {
        keys(schema, choice, prefix, found);
    }
    if at["items"].is_object() {
        keys(schema, &at["items"], prefix, found);
    }
    for (key, value) in at["properties"].as_object().into_iter().flatten() {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        keys(schema, value, &name, found);
        found.insert(name);
    }
}

fn all_keys() -> BTreeSet<String> {
    let schema = schema();
    let mut found = BTreeSet::new();
    keys(&schema, &schema, "", &mut found);
    assert!(found.contains("service.affinity.prefix-v6"), "{found:?}");
    found
}

/// Every key of a document.
fn used(table: &toml::Table, prefix: &str, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let tables = match value {
            toml::Value::Array(values) => values.iter().filter_map(toml::Value::as_table).collect(),
            value => Vec::from_iter(value.as_table()),
        };
        for table in tables {
            used(table, &name, found);
        }
        found.insert(name);
    }
}

#[test]
fn the_sample_is_valid_and_has_every_key() {
    let plain = parse(SAMPLE, "lb.sample.toml").unwrap_or_else(|errors| panic!("{errors}"));
    assert!(plain.warnings.is_empty(), "{:?}", plain.warnings);
    let text = full_sample();
    let full = parse(&text, "full").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(
        full.secrets.session,
        SecretSource::Given(*b"\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f")
    );
    let mut found = BTreeSet::new();
    used(&toml::from_str(&text).unwrap(), "", &mut found);
    // Each excludes the key that the sample shows as well.
    for file in [
        "node.session-secret-file",
        "node.syn-cookie-secret-file",
        "node.segment-key.key-file",
        "service.quic.key-file",
    ] {
        found.insert(file.to_owned());
    }
    // The backends of pools and paths have the keys of a service's.
    let shared = found.iter().filter_map(|key| key.strip_prefix("service.backend."));
    let shared: Vec<_> = shared
        .flat_map(|key| [format!("pool.backend.{key}"), format!("service.path.backend.{key}")])
        .collect();
    found.extend(shared);
    assert_eq!(found, all_keys());
}

#[test]
fn the_sample_shows_the_defaults() {
    // What the sample shows as default is switched on, keys without a default are taken out again.
    let without = [
        "name = \"lb1\"",
        "session-secret",
        "syn-cookie-secret",
        "segment-key",
        "key = ",
        "delimiter",
        "segment = ",
        "route",
        "server-id =",
        "name = \"static\"",
        "id = 4712",
        "tunnel-source",
        "group",
        "metrics",
        "advertise",
        "discover",
        "announce",
        "webhook",
        "block",
        "id = 4711",
        "source-nat",
        "mss",
        "number = 1",
        "host = ",
        "body = ",
        "port = 9080",
        "slow-start",
        "mirror",
        "max-connections",
    ];
    let text: String = full_sample()
        .lines()
        .filter(|line| !without.iter().any(|start| line.starts_with(start)))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(parse(&text, "defaults").unwrap(), parse(SAMPLE, "sample").unwrap());
}

#[test]
fn the_schema_is_up_to_date() {
    let file = path("../docs/config.schema.json");
    let now = schema();
    if renew() {
        fs::write(&file, format!("{}\n", serde_json::to_string_pretty(&now).unwrap())).unwrap();
    }
    let was: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap_or_default()).unwrap_or_default();
    assert!(was == now, "{} is not up to date (RENEW=1 writes it)", file.display());
}

#[test]
fn the_reference_names_every_key() {
    let text = fs::read_to_string(path("../docs/configuration.md")).unwrap();
    let missing: Vec<_> = all_keys()
        .into_iter()
        .filter(|key| !text.contains(&format!("`{}`", key.rsplit('.').next().unwrap())))
        .filter(|key| !text.contains(&format!("[{key}]")))
        .collect();
    assert!(missing.is_empty(), "not in docs/configuration.md: {missing:?}");
}

#[test]
fn the_sandbox_file_is_valid() {
    let configuration = load(path("../xtask/sandbox.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(configuration.warnings.is_empty(), "{:?}", configuration.warnings);
    assert_eq!(configuration.unsealed.services.len(), 8);
    assert_valid(&fs::read_to_string(path("../xtask/sandbox.toml")).unwrap());
}

/// Checks a document against the schema, with the words of JSON schema that ours uses.
fn conforms(schema: &Value, at: &Value, value: &Value) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{value}: {why} {at}"));
    for (word, rule) in at.as_object().unwrap() {
        let right = match word.as_str() {
            "$ref" => {
                let target = rule.as_str().and_then(|r| r.strip_prefix('#')).and_then(|p| schema.pointer(p));
                conforms(schema, target.unwrap(), value)?;
                true
            }
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => return wrong(&format!("type {other} is not known to this test")),
            },
            "minimum" => match value.as_u64() {
                Some(number) => number >= rule.as_u64().unwrap(),
                None => !value.is_i64(),
            },
            "maximum" => value.as_u64().is_none_or(|number| number <= rule.as_u64().unwrap()),
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "anyOf" | "oneOf" => {
                rule.as_array().unwrap().iter().any(|choice| conforms(schema, choice, value).is_ok())
            }
            "items" => {
                for element in value.as_array().into_iter().flatten() {
                    conforms(schema, rule, element)?;
                }
                true
            }
            "properties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    match rule.get(key) {
                        Some(rule) => conforms(schema, rule, value)?,
                        None => return wrong(&format!("has no key {key}")),
                    }
                }
                true
            }
            "required" => {
                let has = |key: &Value| value.get(key.as_str().unwrap()).is_some();
                !value.is_object() || rule.as_array().unwrap().iter().all(has)
            }
            "additionalProperties" => rule == &Value::Bool(false),
            "pattern" | "title" | "description" | "default" | "$schema" | "$defs" => true,
            other => return wrong(&format!("the word {other} is not known to this test")),
        };
        if !right {
            return wrong(word);
        }
    }
    Ok(())
}

fn assert_valid(text: &str) {
    let document: Value = toml::from_str(text).unwrap();
    let schema = schema();
    conforms(&schema, &schema, &document).unwrap();
}

#[test]
fn the_schema_takes_the_sample_and_refuses_what_the_reader_refuses() {
    assert_valid(SAMPLE);
    assert_valid(&full_sample());
    let schema = schema();
    let refused = |from: &str, to: &str| {
        let text = full_sample().replacen(from, to, 1);
        assert_ne!(text, full_sample(), "{from}");
        let document: Value = toml::from_str(&text).unwrap();
        assert!(conforms(&schema, &schema, &document).is_err(), "the schema takes {to}");
        assert!(parse(&text, "t").is_err(), "the reader takes {to}");
    };
    refused("port = 80", "port = 0");
    refused("port = 80", "port = \"all\"");
    refused("mode = \"nat\"", "mode = \"dsr\"");
    refused("mode = \"nat\"", "");
    refused("weight = 1", "weight = 1001");
    refused("name = \"lb1\"", "nam = \"lb1\"");
    refused("prefix-v4 = 32", "prefix-v4 = 33");
    refused("kind = \"source-ip\", ", "");
    refused("read = \"bind\"", "read = \"hash\"");
    refused("rotation = 0", "rotation = 7");
    refused("length = 4", "length = 65");
    refused("nonce-length = 6", "");
    refused("proxy-protocol = false", "proxy-protocol = \"no\"");
}

#[test]
fn defaults_in_the_schema_are_those_of_the_reader() {
    let schema = schema();
    let at =
        |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"))["default"].clone();
    let node = parse("", "empty").unwrap().desired([0; 16]).node;
    assert_eq!(at("/properties/node/properties/bindings"), node.bindings);
    assert_eq!(at("/properties/node/properties/gue-port"), node.gue_port);
    assert_eq!(at("/properties/node/properties/held"), node.held);
    assert_eq!(at("/properties/node/properties/timeouts/properties/request-head"), "20s");
    assert_eq!(at("/properties/node/properties/limits/properties/answer-rate"), node.limits.answer_rate);
    assert_eq!(at("/properties/node/properties/timeouts/properties/tcp-established"), "2h30m");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*") {
        if let Err(errors) = parse(&text, "t") {
            prop_assert!(!errors.problems.is_empty());
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn no_change_of_the_sample_makes_the_reader_panic(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), "[ -~\n\t\u{e4}]{0,6}"), 1..6)
    ) {
        let mut text: Vec<char> = full_sample().chars().collect();
        for (from, length, put) in cuts {
            let from = from.index(text.len());
            let to = (from + length.index(24)).min(text.len());
            text.splice(from..to, put.chars());
        }
        let text: String = text.into_iter().collect();
        match parse(&text, "t") {
            Ok(configuration) => prop_assert!(difference(&configuration.unsealed, &configuration.unsealed).is_empty()),
            Err(errors) => {
                prop_assert!(errors.problems.iter().any(|problem| problem.severity == Severity::Error));
                let _ = serde_json::to_string(&errors).unwrap();
                prop_assert!(!errors.to_string().is_empty());
            }
        }
    }

    #[test]
    fn swapped_lines_of_the_sample_do_not_make_the_reader_panic(
        swaps in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..8)
    ) {
        let text = full_sample();
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        for (a, b) in swaps {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
        }
        if let Err(errors) = parse(&lines.join("\n"), "t") {
            prop_assert!(!errors.to_string().is_empty());
        }
    }
}
