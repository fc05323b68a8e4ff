//! Callers: as many connections as asked for, each with one call at a time.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::place::Place;
use crate::upstream::{PIECES, now_us};

/// Makes calls.
pub(crate) struct Load;

/// What was measured.
pub(crate) struct Sample {
    micros: Vec<u64>,
    took: Duration,
}

impl Sample {
    fn new(mut micros: Vec<u64>, took: Duration) -> Self {
        micros.sort_unstable();
        Sample { micros, took }
    }

    /// How many calls.
    pub(crate) fn calls(&self) -> usize {
        self.micros.len()
    }

    /// Calls a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.micros.len() as f64 / self.took.as_secs_f64()
    }

    /// So many per cent took at most this long.
    pub(crate) fn percentile_us(&self, percent: usize) -> u64 {
        let last = self.micros.len().saturating_sub(1);
        self.micros.get(last * percent / 100).copied().unwrap_or(0)
    }
}

impl Load {
    /// Each connection calls again as soon as it has its answer.
    pub(crate) fn closed(place: &Place, connections: usize, each: Duration) -> Sample {
        let request = Arc::new(place.request("/v1/chat/completions", &"x".repeat(1024 - 14)));
        run(place, connections, move |mut stream, _| {
            let request = Arc::clone(&request);
            async move {
                let (until, mut micros) = (Instant::now() + each, Vec::new());
                while Instant::now() < until {
                    let began = Instant::now();
                    call(&mut stream, &request).await?;
                    micros.push(micros_since(began));
                }
                Ok(micros)
            }
        })
    }

    /// Calls are due at a fixed rate, and late ones are counted from when they were due.
    pub(crate) fn open(place: &Place, connections: usize, per_second: f64, each: Duration) -> Sample {
        let request = Arc::new(place.request("/v1/chat/completions", &"x".repeat(1024 - 14)));
        let between = Duration::from_secs_f64(connections as f64 / per_second.max(1.0));
        run(place, connections, move |mut stream, number| {
            let request = Arc::clone(&request);
            async move {
                let (began, mut micros) = (Instant::now(), Vec::new());
                let mut due = began + between.mul_f64(number as f64 / connections as f64);
                while due < began + each {
                    tokio::time::sleep_until(due.into()).await;
                    call(&mut stream, &request).await?;
                    micros.push(micros_since(due));
                    due += between;
                }
                Ok(micros)
            }
        })
    }

    /// Streams: the time to the first byte, and from a piece's writing to its reading.
    pub(crate) fn streams(place: &Place, connections: usize, each: Duration) -> (Sample, Sample) {
        let request = Arc::new(place.request("/v1/stream", "{}"));
        let sample = run(place, connections, move |mut stream, _| {
            let request = Arc::clone(&request);
            async move {
                let (until, mut micros) = (Instant::now() + each, Vec::new());
                while Instant::now() < until {
                    let began = Instant::now();
                    stream.write_all(&request).await?;
                    read_head(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
                    for piece in 0..PIECES {
                        let mut line = String::new();
                        while !line.starts_with("data: ") {
                            line.clear();
                            stream.read_line(&mut line).await?;
                        }
                        if piece == 0 {
                            micros.push(micros_since(began));
                        }
                        let written: u64 =
                            line["data: ".len()..].trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
                        micros.push(now_us().saturating_sub(written) | PIECE);
                    }
                    let mut line = String::new();
                    while line != "0\r\n" {
                        line.clear();
                        stream.read_line(&mut line).await?;
                    }
                    // Trailers, and the empty line at their end.
                    while line != "\r\n" {
                        line.clear();
                        stream.read_line(&mut line).await?;
                    }
                }
                Ok(micros)
            }
        });
        let (pieces, first): (Vec<u64>, Vec<u64>) = sample.micros.iter().partition(|micros| **micros & PIECE != 0);
        let pieces = pieces.into_iter().map(|micros| micros & !PIECE).collect();
        (Sample::new(first, sample.took), Sample::new(pieces, sample.took))
    }

    /// Large bodies at once; how long all of them took.
    pub(crate) fn large(place: &Place, connections: usize, len: usize) -> Duration {
        let request = Arc::new(place.request("/v1/files", &"x".repeat(len)));
        run(place, connections, move |mut stream, _| {
            let request = Arc::clone(&request);
            async move {
                call(&mut stream, &request).await?;
                Ok(vec![0])
            }
        })
        .took
    }
}

/// Marks the time of a piece among those of first bytes.
const PIECE: u64 = 1 << 63;

fn run<F>(place: &Place, connections: usize, one: impl Fn(BufReader<TcpStream>, usize) -> F) -> Sample
where
    F: Future<Output = io::Result<Vec<u64>>> + Send + 'static,
{
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(place.address).await.expect("it listens");
            stream.set_nodelay(true).expect("a socket option");
            streams.push(BufReader::new(stream));
        }
        let began = Instant::now();
        let numbered = streams.into_iter().enumerate();
        let tasks: Vec<_> = numbered.map(|(number, stream)| tokio::spawn(one(stream, number))).collect();
        let mut micros = Vec::new();
        for task in tasks {
            micros.extend(task.await.expect("no panic").unwrap_or_else(|error| panic!("{}: {error}", place.name)));
        }
        Sample::new(micros, began.elapsed())
    })
}

async fn call(stream: &mut BufReader<TcpStream>, request: &[u8]) -> io::Result<()> {
    stream.write_all(request).await?;
    let head = read_head(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut body = vec![0; content_length(&head).ok_or(io::ErrorKind::InvalidData)?];
    stream.read_exact(&mut body).await?;
    let ok = head.starts_with("HTTP/1.1 200 ");
    if ok { Ok(()) } else { Err(io::Error::other(format!("{head}{}", String::from_utf8_lossy(&body)))) }
}

/// A head as text; none at the end of the connection.
pub(crate) async fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if stream.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
        if &head[before..] == "\r\n" {
            return Ok(Some(head));
        }
    }
}

/// The length of what follows a head, where it says so.
pub(crate) fn content_length(head: &str) -> Option<usize> {
    let named = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = named.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().and_then(|(_, value)| value.trim().parse().ok())
}

fn micros_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).expect("not that long")
}
