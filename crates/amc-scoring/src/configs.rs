//! Signed configuration: what was in force when, and what is wrong with it.

use std::collections::BTreeMap;

use amc_core::kinds::{ConfigLoaded, ConfigSigned, ConfigState, Fields};
use amc_core::{Finding, FindingCode};
use amc_evidence::EventRecord;

/// What a file's breakage costs the IntegrityIndex, in basis points.
pub fn penalty_bp(path: &str) -> u32 {
    match path.rsplit('/').next().unwrap_or(path) {
        "gateway.yaml" => 1_500,
        "gatePolicy.json" | "bank.toml" | "users.yaml" => 1_200,
        _ => 1_000,
    }
}

/// One load of one file.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// The event.
    pub record: &'a EventRecord,
    /// Its fields.
    pub fields: &'a ConfigLoaded,
}

impl Load<'_> {
    /// Where it stands.
    pub const fn index(&self) -> u64 {
        self.record.event.index
    }
}

/// All loads and signatures that a run reads.
#[derive(Debug, Clone, Default)]
pub struct Configs<'a> {
    /// Loads per path, by position.
    loads: BTreeMap<&'a str, Vec<Load<'a>>>,
    /// Signatures per path, by position in the audit log.
    signed: BTreeMap<&'a str, Vec<(&'a EventRecord, &'a ConfigSigned)>>,
}

impl<'a> Configs<'a> {
    /// From selected records of both logs, sorted by index.
    pub fn new(evidence: &'a [EventRecord], audit: &[&'a EventRecord]) -> Self {
        let mut configs = Configs::default();
        for record in evidence {
            if let (Some(Fields::ConfigLoaded(fields)), None) = (&record.fields, record.event.session) {
                configs.loads.entry(&fields.path).or_default().push(Load { record, fields });
            }
        }
        for record in audit.iter().copied() {
            if let Some(Fields::ConfigSigned(signed)) = &record.fields {
                configs.signed.entry(&signed.path).or_default().push((record, signed));
            }
        }
        configs
    }

    /// The loads that were in force at any moment between two positions: per path the newest before,
    /// and all between.
    pub fn in_force(&self, from_index: u64, to_index: u64) -> Vec<Load<'a>> {
        let mut found = Vec::new();
        for loads in self.loads.values() {
            let start = loads.partition_point(|load| load.index() < from_index).saturating_sub(1);
            found.extend(loads[start..].iter().filter(|load| load.index() <= to_index).copied());
        }
        found
    }

    /// The signature's state of the route that a call took: whether the gateway's configuration in
    /// force at this position was signed at this version.
    pub fn gateway_signed_at(&self, index: u64, version: u64) -> Option<Load<'a>> {
        let loads = self.loads.get("gateway.yaml")?;
        let at = loads.partition_point(|load| load.index() < index);
        let load = loads[..at].last()?;
        let good = load.fields.state == ConfigState::Signed && load.fields.version == Some(version) && version > 0;
        good.then_some(*load)
    }

    /// The first signature of a path that `wanted` accepts, made before that moment.
    pub fn signed_before(&self, wall_ns: i64, wanted: impl Fn(&str) -> bool) -> Option<&'a EventRecord> {
        let paths = self.signed.iter().filter(|(path, _)| wanted(path));
        paths.flat_map(|(_, entries)| entries).map(|(record, _)| *record).find(|record| record.event.wall_ns <= wall_ns)
    }

    /// Whether a signed load was the newest version that had been signed by then.
    pub fn is_current(&self, load: &Load<'a>) -> bool {
        let Some(entries) = self.signed.get(load.fields.path.as_str()) else { return false };
        let known = |(_, signed): &&(&EventRecord, &ConfigSigned)| {
            Some(signed.version) == load.fields.version && signed.sha256 == load.fields.sha256
        };
        entries.iter().any(|entry| known(&entry)) && !self.is_stale(load)
    }

    /// Whether a newer version had been signed before this load.
    fn is_stale(&self, load: &Load<'a>) -> bool {
        let Some(version) = load.fields.version else { return false };
        let Some(entries) = self.signed.get(load.fields.path.as_str()) else { return false };
        entries
            .iter()
            .any(|(record, signed)| signed.version > version && record.event.wall_ns < load.record.event.wall_ns)
    }

    /// Files whose newest load is unsigned or invalid, by path.
    pub fn broken(&self) -> Vec<Load<'a>> {
        let newest = self.loads.values().filter_map(|loads| loads.last().copied());
        newest.filter(|load| load.fields.state != ConfigState::Signed).collect()
    }

    /// What is wrong, or was and is repaired.
    pub fn findings(&self, window_start_ns: i64) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (path, loads) in &self.loads {
            let newest_index = loads.last().map(Load::index);
            let newest_good = loads.last().is_some_and(|load| load.fields.state == ConfigState::Signed);
            if newest_good {
                let bad = loads.iter().rfind(|load| {
                    load.fields.state != ConfigState::Signed && load.record.event.wall_ns >= window_start_ns
                });
                findings.extend(bad.map(|load| repaired(path, load)));
            } else {
                findings.extend(loads.last().map(|load| unrepaired(path, load)));
            }
            for pair in loads.windows(2) {
                if let (Some(before), Some(after)) = (pair[0].fields.version, pair[1].fields.version)
                    && after < before
                {
                    let what = format!("{path} went back from version {before} to {after}; sign it as a new version");
                    findings.push(Finding::warn(FindingCode::ConfigVersionRollback, subject(&pair[1]), what));
                }
            }
            for load in loads.iter().filter(|load| self.is_stale(load)) {
                let now = if newest_index == Some(load.index()) { "still in force" } else { "replaced since" };
                let what = format!("{path} was loaded when a newer version had been signed; {now}");
                findings.push(Finding::warn(FindingCode::ConfigStale, subject(load), what));
            }
        }
        findings
    }
}

fn subject(load: &Load<'_>) -> String {
    format!("evidence#{}", load.index())
}

fn code(load: &Load<'_>) -> (FindingCode, &'static str) {
    match load.fields.state {
        ConfigState::Invalid => (FindingCode::ConfigSignatureInvalid, "a signature that does not hold"),
        ConfigState::Unsigned | ConfigState::Signed => (FindingCode::ConfigUnsigned, "no signature"),
    }
}

fn unrepaired(path: &str, load: &Load<'_>) -> Finding {
    let (code, how) = code(load);
    let what = format!(
        "{path} is in force with {how}; every question is capped at level 3 until `amc config sign {path}` and a reload"
    );
    Finding::warn(code, subject(load), what)
}

fn repaired(path: &str, load: &Load<'_>) -> Finding {
    let (code, how) = code(load);
    Finding::info(code, subject(load), format!("{path} was loaded with {how} within the window and is repaired since"))
}
