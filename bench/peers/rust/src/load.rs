//! What the Rust peers share: arguments, the load, the collector, the answer.

use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

const WARM_UP: Duration = Duration::from_millis(200);

/// One turn: where, how many at once, how large, how long.
#[derive(Clone)]
pub struct Load {
    pub dir: PathBuf,
    pub tasks: usize,
    pub size: usize,
    pub seconds: f64,
    pub batched: bool,
}

pub fn arguments() -> (String, Load) {
    let mut words = std::env::args().skip(1);
    let name = words.next().expect("the peer's name");
    let mut load = Load {
        dir: PathBuf::new(),
        tasks: 1,
        size: 256,
        seconds: 1.0,
        batched: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        match word.as_str() {
            "--dir" => load.dir = value().into(),
            "--tasks" => load.tasks = value().parse().unwrap(),
            "--size" => load.size = value().parse().unwrap(),
            "--seconds" => load.seconds = value().parse().unwrap(),
            "--batched" => load.batched = true,
            _ => panic!("unknown option {word}"),
        }
    }
    (name, load)
}

/// What came out.
pub struct Report {
    latencies: Vec<Duration>,
    seconds: f64,
}

impl Report {
    pub fn of(mut latencies: Vec<Duration>, seconds: f64) -> Self {
        latencies.sort_unstable();
        Self { latencies, seconds }
    }

    pub fn json(&self) -> String {
        let at = |share: f64| {
            let index = (self.latencies.len() as f64 * share) as usize;
            self.latencies
                .get(index)
                .map_or(0.0, |latency| latency.as_nanos() as f64 / 1e3)
        };
        format!(
            "{{\"appends\": {}, \"seconds\": {:.6}, \"p50_us\": {:.1}, \"p99_us\": {:.1}}}",
            self.latencies.len(),
            self.seconds,
            at(0.5),
            at(0.99)
        )
    }
}

/// Group commit in front of a library without one: what arrives while a batch is written is the next batch.
#[derive(Clone)]
pub struct Collector {
    queue: mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)>,
}

impl Collector {
    pub fn new(mut commit: impl FnMut(&[Vec<u8>]) + Send + 'static) -> Self {
        let (queue, waiting) = mpsc::channel::<(Vec<u8>, oneshot::Sender<()>)>();
        std::thread::spawn(move || {
            while let Ok((payload, waiter)) = waiting.recv() {
                let (mut payloads, mut waiters) = (vec![payload], vec![waiter]);
                for (payload, waiter) in waiting.try_iter() {
                    payloads.push(payload);
                    waiters.push(waiter);
                }
                commit(&payloads);
                for waiter in waiters {
                    let _ = waiter.send(());
                }
            }
        });
        Self { queue }
    }

    pub async fn append(&self, payload: Vec<u8>) {
        let (waiter, durable) = oneshot::channel();
        self.queue.send((payload, waiter)).unwrap();
        durable.await.unwrap();
    }
}

/// One task: call directly, on its own thread. Many: tasks on a runtime, the collector behind them.
pub fn drive(load: &Load, mut commit: impl FnMut(&[Vec<u8>]) + Send + 'static) -> Report {
    if load.tasks == 1 {
        let payload = vec![vec![0x5a_u8; load.size]];
        let (latencies, seconds) = repeat(load.seconds, || commit(&payload));
        return Report::of(latencies, seconds);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let collector = Collector::new(commit);
        let began = Instant::now();
        let warm = began + WARM_UP;
        let end = warm + Duration::from_secs_f64(load.seconds);
        let mut tasks = Vec::new();
        for _ in 0..load.tasks {
            let (collector, size) = (collector.clone(), load.size);
            tasks.push(tokio::spawn(async move {
                let payload = vec![0x5a_u8; size];
                let mut latencies = Vec::new();
                loop {
                    let called = Instant::now();
                    if called >= end {
                        return latencies;
                    }
                    collector.append(payload.clone()).await;
                    if called >= warm {
                        latencies.push(called.elapsed());
                    }
                }
            }));
        }
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await.unwrap());
        }
        Report::of(latencies, warm.elapsed().as_secs_f64())
    })
}

/// One thread for each concurrent append, for libraries that group threads themselves.
pub fn drive_threads(load: &Load, append: impl Fn(&[u8]) + Send + Sync + 'static) -> Report {
    let (append, start) = (Arc::new(append), Arc::new(Barrier::new(load.tasks)));
    let threads: Vec<_> = (0..load.tasks)
        .map(|_| {
            let (append, start, size, seconds) = (
                Arc::clone(&append),
                Arc::clone(&start),
                load.size,
                load.seconds,
            );
            std::thread::spawn(move || {
                let payload = vec![0x5a_u8; size];
                start.wait();
                repeat(seconds, || append(&payload))
            })
        })
        .collect();
    let mut latencies = Vec::new();
    let mut longest = 0.0_f64;
    for thread in threads {
        let (taken, seconds) = thread.join().unwrap();
        latencies.extend(taken);
        longest = longest.max(seconds);
    }
    Report::of(latencies, longest)
}

fn repeat(seconds: f64, mut append: impl FnMut()) -> (Vec<Duration>, f64) {
    let warm = Instant::now() + WARM_UP;
    let end = warm + Duration::from_secs_f64(seconds);
    let mut latencies = Vec::new();
    loop {
        let called = Instant::now();
        if called >= end {
            return (latencies, warm.elapsed().as_secs_f64());
        }
        append();
        if called >= warm {
            latencies.push(called.elapsed());
        }
    }
}
