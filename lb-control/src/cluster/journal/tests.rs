use super::*;
use proptest::prelude::*;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const NODE: u64 = 0x1234_5678_9abc_def0;
const EPOCH: u64 = 1_000;
/// Names the file, in the environment of a child process that writes to it until it is killed.
const CHILD: &str = "STICKLEBACK_TEST_JOURNAL";

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cluster/journal.redb");
    (directory, path)
}

fn block(first: u64, last: u64) -> Block {
    let bytes = (first..=last).flat_map(u64::to_be_bytes).collect();
    Block { origin: NODE, epoch: EPOCH, first, last, bytes }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Writes batches one after the other and closes the journal.
fn written(path: &Path, batches: Vec<Vec<Write>>) {
    let (mut journal, _, _) = Journal::open(path, NODE, EPOCH).expect("opened");
    runtime().block_on(async {
        for batch in batches {
            journal.write(batch).await.expect("queued");
        }
    });
    journal.close().expect("all is durable");
}

fn reopened(path: &Path, fresh: u64) -> (Recovered, Opening) {
    let (journal, recovered, opening) = Journal::open(path, NODE, fresh).expect("opened");
    journal.close().expect("closed");
    (recovered, opening)
}

#[test]
fn a_new_journal_is_empty_and_keeps_its_epoch() {
    let (_directory, path) = place();
    let (recovered, opening) = reopened(&path, EPOCH);
    assert_eq!(opening, Opening::Fresh);
    assert_eq!(recovered, Recovered { epoch: EPOCH, ..Recovered::default() });
    let (recovered, opening) = reopened(&path, EPOCH + 5);
    assert_eq!((recovered.epoch, opening), (EPOCH, Opening::Continued));
}

#[test]
fn what_was_written_is_there_again() {
    let (_directory, path) = place();
    let other = Block { origin: 7, epoch: 3, ..block(1, 4) };
    written(
        &path,
        vec![
            vec![Write::Events(block(1, 10)), Write::Vector(b"v1".to_vec())],
            vec![Write::Events(block(11, 20)), Write::Events(other.clone()), Write::Vector(b"v2".to_vec())],
            vec![Write::Trim { origin: NODE, epoch: EPOCH, through: 19 }, Write::Epoch(EPOCH + 1)],
        ],
    );
    let (recovered, _) = reopened(&path, 1);
    assert_eq!(recovered.epoch, EPOCH + 1);
    assert_eq!(recovered.vector, b"v2");
    assert_eq!(recovered.blocks, [other, block(11, 20)], "a block goes when its last event may go");
}

#[test]
fn a_snapshot_counts_once_it_is_sealed_and_replaces_the_one_before() {
    let (_directory, path) = place();
    let part = |snapshot, part, text: &str| Write::Part { snapshot, part, bytes: text.as_bytes().to_vec() };
    let view = |digest| Write::View { digest, bytes: vec![digest as u8; 3] };
    written(&path, vec![vec![part(1, 0, "a"), part(1, 1, "b"), view(7), view(8)]]);
    assert_eq!(reopened(&path, 1).0.views, [[7; 3], [8; 3]]);
    assert_eq!(reopened(&path, 1).0.snapshot, None);
    written(
        &path,
        vec![vec![Write::Seal { snapshot: 1, vector: b"one".to_vec(), views: vec![7] }, part(2, 0, "c")]],
    );
    let sealed = Snapshot { number: 1, vector: b"one".to_vec(), parts: vec![b"a".to_vec(), b"b".to_vec()] };
    assert_eq!(reopened(&path, 1).0.snapshot, Some(sealed));
    assert_eq!(reopened(&path, 1).0.views, [[7; 3]]);
    written(
        &path,
        vec![vec![part(3, 0, "d"), Write::Seal { snapshot: 3, vector: b"three".to_vec(), views: vec![] }]],
    );
    let sealed = Snapshot { number: 3, vector: b"three".to_vec(), parts: vec![b"d".to_vec()] };
    assert_eq!(reopened(&path, 1).0.snapshot, Some(sealed));
}

#[test]
fn a_journal_that_is_in_use_is_refused_and_stays() {
    let (_directory, path) = place();
    let (journal, _, _) = Journal::open(&path, NODE, EPOCH).expect("opened");
    let second = Journal::open(&path, NODE, EPOCH + 1);
    assert!(matches!(second, Err(JournalError::Busy { .. })), "{second:?}");
    journal.close().expect("closed");
    assert_eq!(reopened(&path, EPOCH + 1).1, Opening::Continued);
}

#[test]
fn another_nodes_journal_is_set_aside() {
    let (_directory, path) = place();
    written(&path, vec![vec![Write::Events(block(1, 2))]]);
    let (journal, recovered, opening) = Journal::open(&path, 5, EPOCH + 9).expect("opened");
    drop(journal);
    assert!(
        matches!(opening, Opening::SetAside { ref reason, .. } if reason.contains("node")),
        "{opening:?}"
    );
    assert_eq!((recovered.epoch, recovered.blocks), (EPOCH + 9, vec![]));
}

#[test]
fn one_flush_takes_everything_that_waits() {
    let (_directory, path) = place();
    let (mut journal, _, _) = Journal::open(&path, NODE, EPOCH).expect("opened");
    let mut progress = journal.progress();
    let flushes = runtime().block_on(async {
        let mut last = Ticket(0);
        for number in 1..=1_000 {
            last = journal.write(vec![Write::Events(block(number, number))]).await.expect("queued");
        }
        let mut flushes = 0;
        while progress.borrow_and_update().durable < last {
            progress.changed().await.expect("the thread lives");
            flushes += 1;
        }
        flushes
    });
    journal.close().expect("closed");
    assert!(flushes < 500, "{flushes} flushes for 1,000 batches");
    assert_eq!(reopened(&path, 1).0.blocks.len(), 1_000);
}

/// Not a test of its own: what the next one starts as another process.
#[test]
fn child_that_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let (mut journal, recovered, _) = Journal::open(Path::new(&path), NODE, EPOCH).expect("opened");
    let mut progress = journal.progress();
    runtime().block_on(async {
        let mut next = recovered.blocks.last().map_or(1, |block| block.last + 1);
        let mut ends = std::collections::VecDeque::new();
        loop {
            let last = next + next % 7;
            let mut batch =
                vec![Write::Events(block(next, last)), Write::Vector(last.to_be_bytes().to_vec())];
            if next % 5 == 0 && last > 200 {
                batch.push(Write::Trim { origin: NODE, epoch: EPOCH, through: last - 200 });
            }
            ends.push_back((journal.write(batch).await.expect("queued"), last));
            next = last + 1;
            if ends.len() > 64 {
                progress.changed().await.expect("the thread lives");
            }
            let durable = progress.borrow().durable;
            while let Some((_, last)) = ends.pop_front_if(|(ticket, _)| *ticket <= durable) {
                println!("durable {last}");
            }
        }
    });
}

#[test]
fn nothing_that_was_durable_is_lost_to_a_kill() {
    let (_directory, path) = place();
    let mut seed = 0x9e37_79b9_u64;
    let mut said = 0;
    for round in 0..25 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "cluster::journal::tests::child_that_is_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let out = child.stdout.take().expect("piped");
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.filter_map(|line| line.strip_prefix("durable ").and_then(|n| n.parse::<u64>().ok())).max()
        });
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_millis(30 + (seed >> 33) % 200));
        child.kill().expect("killed");
        child.wait().expect("gone");
        said = said.max(reader.join().expect("read").unwrap_or(0));

        let (recovered, opening) = reopened(&path, EPOCH + 1);
        assert!(matches!(opening, Opening::Continued | Opening::Fresh), "round {round}: {opening:?}");
        let last = recovered.blocks.last().map_or(0, |block| block.last);
        assert!(last >= said, "round {round}: {said} was durable, the journal ends at {last}");
        assert!(
            recovered.blocks.windows(2).all(|pair| pair[0].last + 1 == pair[1].first),
            "round {round}: a gap"
        );
        if last > 0 {
            assert_eq!(recovered.vector, last.to_be_bytes(), "round {round}: a batch is whole or absent");
        }
    }
    assert!(said > 0, "no child got as far as a flush");
}

/// A journal with some hundred kilobytes in it.
fn sample(path: &Path) -> Vec<Block> {
    let blocks: Vec<_> = (0..40).map(|n| block(n * 500 + 1, (n + 1) * 500)).collect();
    written(path, blocks.iter().map(|block| vec![Write::Events(block.clone())]).collect());
    blocks
}

/// What comes out of a damaged file is a prefix of what went in, or the file is set aside and the epoch is new.
fn assert_honest(path: &Path, blocks: &[Block]) {
    let (recovered, opening) = reopened(path, EPOCH + 77);
    match opening {
        Opening::Continued => {
            assert_eq!(recovered.epoch, EPOCH);
            assert!(blocks.starts_with(&recovered.blocks), "something that was never written came out");
        }
        Opening::SetAside { path: aside, .. } => {
            assert!(aside.exists());
            assert_eq!(recovered, Recovered { epoch: EPOCH + 77, ..Recovered::default() });
        }
        Opening::Fresh => panic!("a file was there"),
    }
    // And it works from here on.
    written(path, vec![vec![Write::Events(block(100_001, 100_002))]]);
    assert_eq!(reopened(path, 1).0.blocks.last(), Some(&block(100_001, 100_002)));
}

#[test]
fn an_empty_file_is_no_journal() {
    let (_directory, path) = place();
    let blocks = sample(&path);
    std::fs::File::create(&path).expect("emptied");
    assert_honest(&path, &blocks);
    assert_eq!(std::fs::read_dir(path.parent().expect("its directory")).expect("listed").count(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_torn_file_is_honest(share in 0.0..1.0_f64) {
        let (_directory, path) = place();
        let blocks = sample(&path);
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opened");
        let length = file.metadata().expect("its length").len();
        file.set_len((length as f64 * share) as u64).expect("torn");
        drop(file);
        assert_honest(&path, &blocks);
    }

    #[test]
    fn a_damaged_file_is_honest(share in 0.0..1.0_f64, junk in proptest::collection::vec(any::<u8>(), 1..600)) {
        let (_directory, path) = place();
        let blocks = sample(&path);
        let mut file = std::fs::OpenOptions::new().write(true).open(&path).expect("opened");
        let length = file.metadata().expect("its length").len();
        // The first half of the file is where the pages are.
        file.seek(SeekFrom::Start((length as f64 * share * 0.5) as u64)).expect("sought");
        file.write_all(&junk).expect("damaged");
        drop(file);
        assert_honest(&path, &blocks);
    }
}
