//! Files in `tests/config`: each `NAME.toml` is answered with exactly what `NAME.txt` says.

use super::*;

#[test]
fn every_bad_file_is_answered_as_expected() {
    let directory = path("tests/config");
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        count += 1;
        let name = file.file_name().unwrap().to_str().unwrap();
        let answer = match parse(&fs::read_to_string(&file).unwrap(), name) {
            Ok(configuration) => {
                let warnings: String = configuration.warnings.iter().map(|w| format!("{w}\n")).collect();
                format!("{warnings}{name}: valid\n")
            }
            Err(errors) => format!("{errors}\n"),
        };
        wrong.extend(hold(&file.with_extension("txt"), &answer).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 20, "the cases are in {}, found {count}", directory.display());
}

/// A valid service with `extra` keys and one backend with `backend` keys.
fn with(extra: &str, backend: &str) -> String {
    format!(
        "[[service]]\nname = \"web\"\naddress = \"192.0.2.1\"\nport = 80\nmode = \"nat\"\n{extra}\n\
         [[service.backend]]\nname = \"be1\"\naddress = \"198.51.100.1\"\n{backend}\n"
    )
}

#[test]
fn values_at_the_ends_of_their_ranges() {
    // Key in the service, key in the backend, whether they are taken.
    let table = [
        ("lifetime = \"1s\"", "", true),
        ("lifetime = \"999ms\"", "", false),
        ("lifetime = \"365d\"", "", true),
        ("lifetime = \"366d\"", "", false),
        ("lifetime = \"365d1ns\"", "", false),
        ("mss = 536", "", true),
        ("mss = 535", "", false),
        ("mss = 65495", "", true),
        ("mss = 65496", "", false),
        ("mirror = true", "", true),
        ("mirror = true\nmirror-age = \"100ms\"", "", true),
        ("mirror = true\nmirror-age = \"99ms\"", "", false),
        ("mirror = true\nmirror-age = \"1h\"", "", true),
        ("mirror = true\nmirror-age = \"61m\"", "", false),
        ("mirror-age = \"2s\"", "", false),
        ("mirror = true\nprotocol = \"udp\"", "", false),
        ("mirror = false\nprotocol = \"udp\"", "", true),
        ("id = 0", "", false),
        ("id = 4294967295", "", true),
        ("id = 4294967296", "", false),
        ("binding-rate = 0", "", false),
        ("binding-rate = 1", "", true),
        ("affinity = { kind = \"source-ip\", prefix-v4 = 0 }", "", false),
        ("affinity = { kind = \"source-ip\", prefix-v4 = 1, prefix-v6 = 128 }", "", true),
        ("affinity = { kind = \"source-ip\", prefix-v4 = 33 }", "", false),
        ("affinity = { kind = \"source-ip\", prefix-v6 = 129 }", "", false),
        ("affinity = { kind = \"none\" }", "", true),
        ("affinity = {}", "", false),
        ("affinity = 3", "", false),
        ("source-nat = \"192.0.2.9\"", "", true),
        ("source-nat = \"192.0.2.1\"", "", true),
        ("source-nat = \"198.51.100.1\"", "", false),
        ("source-nat = \"2001:db8::1\"", "", false),
        ("source-nat = \"127.0.0.1\"", "", false),
        ("", "number = 18446744073709551615", true),
        ("", "number = 18446744073709551616", false),
        ("", "number = 0xffff_ffff_ffff_ffff", true),
        ("", "number = 0", false),
        ("", "weight = 0", true),
        ("", "weight = 1000", true),
        ("", "weight = 1001", false),
        ("", "weight = -1", false),
        ("", "weight = 1.5", false),
        ("", "port = 0", false),
        ("", "port = 65535", true),
        ("", "vlan = 0", false),
        ("", "vlan = 4094", true),
        ("", "vlan = 4095", false),
        ("", "vlan = \"none\"", true),
        ("", "state = \"Enabled\"", false),
    ];
    for (service, backend, taken) in table {
        let outcome = parse(&with(service, backend), "t.toml");
        assert_eq!(outcome.is_ok(), taken, "{service} {backend}: {outcome:#?}");
    }
}

#[test]
fn ids_and_numbers_come_from_names_unless_given() {
    use lb_core::pool::identity::{server_number, service_id};
    let named = parse(&with("", ""), "t.toml").unwrap().desired([1; 16]);
    assert_eq!(named.services[0].id, service_id("web"));
    assert_eq!(named.services[0].backends[0].number, server_number("be1"));
    assert_eq!(named.node.session_secret, [1; 16]);
    let given = parse(&with("id = 7", "number = 9"), "t.toml").unwrap().desired([0; 16]);
    assert_eq!((given.services[0].id, given.services[0].backends[0].number), (7, 9));

    let clash = format!(
        "{}{}",
        with("", ""),
        with(&format!("id = {}", service_id("web")), "")
            .replace("\"web\"", "\"other\"")
            .replace("192.0.2.1", "192.0.2.2")
    );
    let errors = parse(&clash, "t.toml").unwrap_err();
    assert_eq!(errors.problems.len(), 1, "{errors}");
    assert!(errors.problems[0].message.contains("is taken by another service"), "{errors}");
    assert!(
        errors.problems[0]
            .suggestion
            .as_deref()
            .unwrap()
            .contains(&format!("id = {}", service_id("web").wrapping_add(1)))
    );
}

#[test]
fn more_than_the_tables_hold_is_refused() {
    use lb_common::abi::{MAX_BACKENDS, MAX_BACKENDS_PER_SERVICE, MAX_SERVICES};
    let backends = |count: u32, second: u32| -> String {
        (0..count)
            .map(|n| {
                format!(
                    "[[service.backend]]\nname = \"b{n}\"\naddress = \"10.{second}.{}.{}\"\n",
                    n >> 8,
                    n & 255
                )
            })
            .collect()
    };
    let service = |n: u32, port: u32| {
        format!("[[service]]\nname = \"s{n}\"\naddress = \"192.0.2.1\"\nport = {port}\nmode = \"nat\"\n")
    };
    let full = service(0, 1) + &backends(MAX_BACKENDS_PER_SERVICE, 1);
    assert!(parse(&full, "t.toml").is_ok());
    let over = service(0, 1) + &backends(MAX_BACKENDS_PER_SERVICE + 1, 1);
    let errors = parse(&over, "t.toml").unwrap_err();
    assert!(errors.problems[0].message.contains("4097 backends"), "{errors}");

    let pool = format!(
        "[[pool]]\nname = \"p\"\n{}",
        backends(MAX_BACKENDS_PER_SERVICE, 1).replace("service.", "pool.")
    );
    let count = MAX_BACKENDS / MAX_BACKENDS_PER_SERVICE;
    let sharing = |count: u32| {
        let services: String = (0..count).map(|n| service(n, n + 1) + "pool = \"p\"\n").collect();
        format!("{pool}{services}")
    };
    assert!(parse(&sharing(count), "t.toml").is_ok());
    let errors = parse(&sharing(count + 1), "t.toml").unwrap_err();
    assert_eq!(errors.problems.len(), 1, "{errors}");
    assert_eq!(errors.problems[0].object.as_deref(), Some("service `s16`"));

    let small = "[[pool]]\nname = \"p\"\n[[pool.backend]]\nname = \"b\"\naddress = \"10.1.1.1\"\n";
    let many = |count: u32| {
        (0..count).fold(small.to_owned(), |text, n| text + &service(n, n + 1) + "pool = \"p\"\n")
    };
    assert!(parse(&many(MAX_SERVICES), "t.toml").is_ok());
    assert!(parse(&many(MAX_SERVICES + 1), "t.toml").unwrap_err().to_string().contains("4097 services"));
}

#[test]
fn problems_serialize_flat() {
    let errors = parse(&with("mod = \"nat\"", ""), "t.toml").unwrap_err();
    let json = serde_json::to_value(&errors).unwrap();
    let problem = &json["problems"][0];
    assert_eq!(problem["severity"], "error");
    assert_eq!(problem["file"], "t.toml");
    assert_eq!((&problem["line"], &problem["column"]), (&Value::from(6), &Value::from(1)));
    assert_eq!(problem["object"], "service `web`");
    assert_eq!(problem["suggestion"], "did you mean `mode`?");
}

#[test]
fn files_that_cannot_be_read_are_problems_too() {
    let directory = tempfile::tempdir().unwrap();
    let missing = load(directory.path().join("none.toml")).unwrap_err();
    assert!(missing.to_string().contains("none.toml"), "{missing}");
    assert!(std::error::Error::source(&missing).is_some());
    assert!(serde_json::to_value(&missing).unwrap()["problems"][0].get("line").is_none());
    let binary = directory.path().join("binary.toml");
    fs::write(&binary, b"[node]\nname = \"\xff\"\n").unwrap();
    let errors = load(&binary).unwrap_err();
    let position = errors.problems[0].position.as_ref().unwrap();
    assert_eq!((position.line, position.column), (2, 9), "{errors}");
}

#[test]
fn secrets_are_not_repeated_in_messages() {
    let errors =
        parse("[node]\nsession-secret = \"00112233445566778899aabbccddee\"\n", "t.toml").unwrap_err();
    let told = errors.to_string() + &serde_json::to_string(&errors).unwrap();
    assert!(!told.contains("00112233"), "{told}");
}
