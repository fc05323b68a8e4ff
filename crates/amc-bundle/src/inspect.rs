//! Shows what a bundle says of itself. Only its archive is checked: nothing here is to be believed.

use std::io::Read;

use amc_core::limits;
use amc_scoring::Report;
use serde::Serialize;

use crate::archive::{ArchiveError, ArchiveReader};
use crate::certificate::CertificatePredicate;
use crate::manifest::{Manifest, ManifestError};
use crate::verify::REPORT_BYTES_MAX;
use crate::{manifest, member};

/// What a bundle says of itself, unverified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The manifest's predicate.
    pub says: manifest::BundlePredicate,
    /// Key id that the manifest's signature names.
    pub issuer_key_id: String,
    /// What the certificate says, where there is one that parses.
    pub certificate: Option<CertificatePredicate>,
    /// Bytes of the whole file.
    pub bytes: u64,
    /// The report, where it parses.
    #[serde(skip)]
    pub report: Option<Report>,
}

/// A file that says nothing that could be shown.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Not a canonical archive.
    #[error("this is not a canonical bundle: {0}")]
    Archive(#[from] ArchiveError),
    /// The manifest does not parse.
    #[error("its manifest: {0}")]
    Manifest(#[from] ManifestError),
}

/// Reads a bundle without any trust.
///
/// # Errors
/// [`InspectError`] when it is no bundle.
pub fn inspect(source: impl Read) -> Result<Inspection, InspectError> {
    let mut archive = ArchiveReader::new(source);
    let mut says = None;
    let mut report = None;
    let mut certificate = None;
    while let Some(header) = archive.next_member()? {
        if header.name == member::MANIFEST {
            let bytes = archive.read_member(&header, limits::ENVELOPE_BYTES_MAX as u64)?;
            says = Some(Manifest::peek(&bytes)?);
        } else if header.name == member::CERTIFICATE {
            let bytes = archive.read_member(&header, limits::ENVELOPE_BYTES_MAX as u64)?;
            certificate = CertificatePredicate::peek(&bytes).ok();
        } else if header.name == member::REPORT_JSON {
            report = Report::from_bytes(&archive.read_member(&header, REPORT_BYTES_MAX)?).ok();
        }
    }
    let (manifest, issuer_key_id) = says.expect("the reader gives the manifest first and no empty archive");
    Ok(Inspection { says: manifest.predicate, issuer_key_id, certificate, bytes: archive.offset(), report })
}
