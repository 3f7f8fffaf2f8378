//! The Rust peers: `peers NAME --dir D --tasks N --size B --seconds S [--batched]` prints one line of JSON.
//!
//! walrus: append_for_topic with FsyncSchedule::SyncEach under N threads. (Its batch_append_for_topic opens the file with
//! O_SYNC and writes entry by entry, so a batch takes as many syncs as it has entries and is slower than the threads.)
//! nodedb-wal: its GroupCommitter under N threads; --batched: its UringWriter behind the collector.
//! kaya-wal: WalWriter in Strict mode with batch_max_records = N, so that N waiting appends share an fsync.

mod load;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kaya_core::{DurabilityMode, WalBatchConfig, WalConfig};
use kaya_io::IoUringDisk;
use kaya_wal::{WalPayload, WalWriter};
use load::{Load, Report};
use nodedb_wal::group_commit::PendingWrite;
use nodedb_wal::record::RecordType;
use nodedb_wal::uring_writer::{UringWriter, UringWriterConfig};
use nodedb_wal::writer::WalWriterConfig;
use nodedb_wal::{DwbMode, GroupCommitter};
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

fn main() {
    let (name, load) = load::arguments();
    let report = match (name.as_str(), load.batched) {
        ("walrus", _) => walrus(&load),
        ("nodedb", false) => nodedb(&load),
        ("nodedb", true) => nodedb_batched(&load),
        ("kaya", _) => kaya(&load),
        _ => panic!("no such peer: {name}"),
    };
    println!("{}", report.json());
}

fn open_walrus(load: &Load) -> Walrus {
    std::env::set_var("WALRUS_QUIET", "1");
    std::env::set_var("WALRUS_DATA_DIR", &load.dir);
    Walrus::with_consistency_and_schedule(
        ReadConsistency::AtLeastOnce {
            persist_every: 1000,
        },
        FsyncSchedule::SyncEach,
    )
    .unwrap()
}

/// A topic for each of up to 64 threads: a topic takes one append at a time, topics are written concurrently.
fn walrus(load: &Load) -> Report {
    let log = open_walrus(load);
    let topics: Vec<String> = (0..load.tasks.min(64)).map(|n| format!("log{n}")).collect();
    let turn = AtomicUsize::new(0);
    thread_local! { static TOPIC: Cell<usize> = const { Cell::new(usize::MAX) }; }
    load::drive_threads(load, move |payload| {
        let topic = TOPIC.get();
        if topic == usize::MAX {
            TOPIC.set(turn.fetch_add(1, Ordering::Relaxed));
        }
        log.append_for_topic(&topics[TOPIC.get() % topics.len()], payload)
            .unwrap();
    })
}

/// Every thread calls `submit`, one of them becomes the leader: how the crate's documentation shows it.
fn nodedb(load: &Load) -> Report {
    let path = load.dir.join("nodedb.wal");
    let config = WalWriterConfig {
        dwb_mode: Some(DwbMode::Off),
        ..WalWriterConfig::default()
    };
    let writer = Arc::new(Mutex::new(
        nodedb_wal::WalWriter::open(&path, config).unwrap(),
    ));
    let committer = Arc::new(GroupCommitter::new());
    load::drive_threads(load, move |payload| {
        let write = PendingWrite {
            record_type: RecordType::Put as u32,
            tenant_id: 1,
            vshard_id: 0,
            database_id: 0,
            payload: payload.to_vec(),
        };
        assert!(committer.submit(&writer, write).unwrap().durable);
    })
}

fn nodedb_batched(load: &Load) -> Report {
    let path = load.dir.join("nodedb.wal");
    let mut writer = UringWriter::open(&path, UringWriterConfig::default()).unwrap();
    load::drive(load, move |batch: &[Vec<u8>]| {
        for payload in batch {
            writer
                .append(RecordType::Put as u32, 1, 0, 0, payload)
                .unwrap();
        }
        writer.submit_and_sync().unwrap();
    })
}

fn kaya(load: &Load) -> Report {
    let config = WalConfig {
        batch: WalBatchConfig {
            batch_max_records: load.tasks,
            ..WalBatchConfig::default()
        },
        ..WalConfig::default()
    };
    let disk = Arc::new(IoUringDisk::new(&load.dir).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let writer = Arc::new(WalWriter::open(config, disk).await.unwrap());
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let began = Instant::now();
        let warm = began + Duration::from_millis(200);
        let end = warm + Duration::from_secs_f64(load.seconds);
        let mut tasks = Vec::new();
        for _ in 0..load.tasks {
            let (writer, latencies, size) =
                (Arc::clone(&writer), Arc::clone(&latencies), load.size);
            tasks.push(tokio::spawn(async move {
                let value = vec![0x5a_u8; size];
                loop {
                    let called = Instant::now();
                    let record = WalPayload::Put {
                        key: b"k".to_vec(),
                        value: value.clone(),
                    };
                    let result = writer.append(record, DurabilityMode::Strict).await.unwrap();
                    assert!(result.durable);
                    let answered = Instant::now();
                    if called >= warm && answered < end {
                        latencies.lock().unwrap().push(answered - called);
                    }
                }
            }));
        }
        // The last appends of a group only end when as many others arrive, so nobody waits for the tasks to stop.
        tokio::time::sleep_until(end.into()).await;
        let taken = std::mem::take(&mut *latencies.lock().unwrap());
        for task in tasks {
            task.abort();
        }
        Report::of(taken, load.seconds)
    })
}
