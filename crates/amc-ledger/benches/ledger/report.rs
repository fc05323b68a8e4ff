//! Figures as a table and as JSON.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// The figures so far; each is printed when it is known.
pub(crate) struct Report {
    figures: Map<String, Value>,
}

impl Report {
    pub(crate) fn new() -> Self {
        println!("| what | per second | p50 | p99 | more |\n|---|---:|---:|---:|---|");
        Report { figures: Map::new() }
    }

    /// A rate with its latencies.
    pub(crate) fn rate(&mut self, what: &str, unit: &str, measured: &Value) {
        let rate = measured["rate"].as_f64().expect("a measured rate");
        let micros =
            |key: &str| measured[key].as_u64().map_or_else(String::new, |us| format!("{:.2} ms", us as f64 / 1000.0));
        let more = rest(measured, &["rate", "p50_us", "p99_us", "count"]);
        println!("| {what} | {rate:.0} {unit} | {} | {} | {more} |", micros("p50_us"), micros("p99_us"));
        self.figures.insert(what.to_owned(), measured.clone());
    }

    /// Figures of other kinds.
    pub(crate) fn values(&mut self, what: &str, measured: &Value) {
        println!("| {what} | | | | {} |", rest(measured, &[]));
        self.figures.insert(what.to_owned(), measured.clone());
    }

    pub(crate) fn write(self, path: &Path) {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown");
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let machine = json!({ "cpu": model, "cores": cores, "kernel": kernel.trim() });
        let all = json!({ "machine": machine, "figures": self.figures });
        let text = serde_json::to_string_pretty(&all).expect("plain values") + "\n";
        std::fs::write(path, text).expect("writes the figures");
        println!("\n{cores} cores, {model}, Linux {}; figures in {}", kernel.trim(), path.display());
    }
}

/// `key value` of everything not shown elsewhere.
fn rest(measured: &Value, shown: &[&str]) -> String {
    let entries = measured.as_object().into_iter().flatten().filter(|(key, _)| !shown.contains(&key.as_str()));
    let entry = |(key, value): (&String, &Value)| match value.as_f64().filter(|_| value.is_f64()) {
        Some(number) => format!("{key} {number:.2}"),
        None => format!("{key} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
    };
    entries.map(entry).collect::<Vec<_>>().join(", ")
}

/// Rate, median and 99th percentile of appends or flushes that took so many microseconds.
pub(crate) fn latencies(mut took: Vec<u32>, elapsed: Duration) -> Value {
    took.sort_unstable();
    let at = |part: usize| took.get((took.len() * part / 100).min(took.len().saturating_sub(1)));
    let rate = per_second(took.len() as u64, elapsed);
    json!({ "rate": rate, "count": took.len(), "p50_us": at(50), "p99_us": at(99) })
}

pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

/// Peak memory of this process in MiB.
pub(crate) fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    peak.and_then(|kib| kib.parse::<f64>().ok()).expect("a number of KiB") / 1024.0
}
