use super::*;
use crate::affinity::Slice;
use proptest::prelude::*;

fn place(marks: &[u64], mark: u64) -> Option<u32> {
    find(&Slice(&[]), mark, marks.len() as u32, |i| marks.get(i as usize).copied())
}

#[test]
fn marks_tell_texts_apart_and_depend_on_the_secret() {
    let of = |text: &[u8], secret| mark(&Slice(text), Span::new(0, text.len() as u32), secret);
    assert_ne!(of(b"app1", &[1, 2]), of(b"app2", &[1, 2]));
    assert_ne!(of(b"app1", &[1, 2]), of(b"app1", &[1, 3]));
    assert_eq!(of(b"app1", &[1, 2]), text::key(&Slice(b"xapp1y"), Span::new(1, 4), &[1, 2]));
}

#[test]
fn every_server_is_found_and_no_other() {
    for count in [0, 1, 2, 3, 1_023, 1_024, 4_095, 4_096_u64] {
        let marks: Vec<u64> = (0..count).map(|i| i * 10 + 5).collect();
        for (i, mark) in marks.iter().enumerate() {
            assert_eq!(place(&marks, *mark), Some(i as u32), "{i} of {count}");
            assert_eq!(place(&marks, mark - 1), None);
            assert_eq!(place(&marks, mark + 1), None);
        }
        assert_eq!(place(&marks, u64::MAX), None);
    }
}

proptest! {
    #[test]
    fn unsorted_or_missing_servers_do_no_harm(marks: Vec<u64>, mark: u64, count: u32) {
        let found = find(&Slice(&[]), mark, count, |i| marks.get(i as usize).copied());
        prop_assert!(found.is_none_or(|place| marks[place as usize] == mark));
    }
}
