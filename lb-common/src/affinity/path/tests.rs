use super::*;
use crate::affinity::Slice;
use proptest::prelude::*;

fn rule(prefix: &[u8]) -> PathRule {
    let mut rule = PathRule { len: prefix.len() as u8, ..PathRule::default() };
    rule.prefix[..prefix.len()].copy_from_slice(prefix);
    rule
}

fn chosen(path: &[u8], rules: &[PathRule]) -> Option<u32> {
    // Other bytes around the path that must not be seen.
    let bytes = [b"GET ".as_slice(), path, b"static/x/x/x"].concat();
    let span = Span::new(4, path.len() as u32);
    longest(&Slice(&bytes), span, rules.len() as u32, |i| rules.get(i as usize))
}

#[test]
fn the_longest_prefix_counts() {
    let rules = [b"/".as_slice(), b"/static/", b"/static/img/logo", b"/static/", b"/a"].map(rule);
    for (path, expected) in [
        ("/", Some(0)),
        ("/index", Some(0)),
        ("/static", Some(0)),
        ("/static/", Some(1)),
        ("/static/img/", Some(1)),
        ("/static/img/logo.png?x=/a", Some(2)),
        ("/Static/", Some(0)),
        ("/ab", Some(4)),
        ("/?/static/", Some(0)),
        ("/%61", Some(0)),
        ("", None),
    ] {
        assert_eq!(chosen(path.as_bytes(), &rules), expected, "{path}");
    }
    assert_eq!(chosen(b"/", &[]), None);
}

#[test]
fn rules_that_cannot_be_are_no_rules() {
    assert_eq!(chosen(&[b'/'; 300], &[PathRule { len: 121, prefix: [b'/'; 120], ..rule(b"") }]), None);
    assert_eq!(chosen(b"/", &[rule(b"")]), None);
    let many = vec![rule(b"/"); 100];
    assert_eq!(longest(&Slice(b"/"), Span::new(0, 1), 100, |_| None), None);
    assert_eq!(chosen(b"/", &many), Some(0));
}

proptest! {
    #[test]
    fn the_choice_is_that_of_a_search(
        path in prop::collection::vec(prop::sample::select(b"/a".to_vec()), 0..130),
        prefixes in prop::collection::vec((0..=120_usize, any::<bool>()), 0..=16),
    ) {
        let prefixes: Vec<Vec<u8>> = prefixes
            .iter()
            .map(|(len, same)| {
                let mut prefix = path[..(*len).min(path.len())].to_vec();
                if !same && let Some(last) = prefix.last_mut() {
                    *last ^= b'/' ^ b'a';
                }
                prefix
            })
            .collect();
        let rules: Vec<PathRule> = prefixes.iter().map(|prefix| rule(prefix)).collect();
        let mut expected: Option<usize> = None;
        for (i, prefix) in prefixes.iter().enumerate() {
            let longer = expected.is_none_or(|best| prefix.len() > prefixes[best].len());
            if !prefix.is_empty() && path.starts_with(prefix) && longer {
                expected = Some(i);
            }
        }
        prop_assert_eq!(chosen(&path, &rules), expected.map(|i| i as u32));
    }
}
