//! Writing an `.amccert`: a bundle's members as they are, the certificate among them, a new manifest.

use std::io::{Read, Seek, SeekFrom, Write};

use amc_core::{Digest, limits};
use amc_crypto::dsse::Envelope;
use amc_crypto::signer::StatementSigner;

use crate::archive::{ArchiveReader, ArchiveWriter};
use crate::error::ExportError;
use crate::manifest::{BundlePredicate, Manifest, MemberEntry};
use crate::member;

/// Puts `certificate` into the bundle that `source` holds; gives the bytes that were written.
///
/// The bundle is one that this issuer has just verified: only its spelling is checked here.
///
/// # Errors
/// [`ExportError`] when it is no bundle, has a certificate already, or cannot be read, signed or written.
pub fn pack_certificate(
    source: &mut (impl Read + Seek),
    certificate: &Envelope,
    signer: &dyn StatementSigner,
    out: impl Write,
) -> Result<u64, ExportError> {
    let inconsistent = |what: String| ExportError::Inconsistent(what);
    let (manifest, certificate) = (listed(source)?, certificate.to_json());
    let entry = MemberEntry { name: member::CERTIFICATE.to_owned(), size: certificate.len() as u64, unpacked: None };
    if manifest.members.iter().any(|listed| listed.entry.name == entry.name) {
        return Err(inconsistent("the bundle has a certificate already".into()));
    }
    let named = manifest.members.into_iter().map(|listed| (listed.entry, listed.sha256));
    let mut named: Vec<(MemberEntry, Digest)> =
        named.chain([(entry, amc_crypto::sha256(certificate.as_bytes()))]).collect();
    named.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    let (members, digests): (Vec<_>, Vec<_>) = named.into_iter().unzip();
    let predicate = BundlePredicate { members, ..manifest.predicate };
    let signed = signer.sign_statement(&Manifest::statement(&predicate, &digests))?.to_json();
    Manifest::peek(signed.as_bytes()).map_err(|error| inconsistent(error.to_string()))?;

    source.seek(SeekFrom::Start(0)).map_err(ExportError::Spool)?;
    let mut archive = ArchiveReader::new(source);
    archive.next_member()?;
    let mut writer = ArchiveWriter::new(out);
    writer.append(member::MANIFEST, signed.len() as u64, &mut signed.as_bytes())?;
    for entry in &predicate.members {
        if entry.name == member::CERTIFICATE {
            writer.append(&entry.name, entry.size, &mut certificate.as_bytes())?;
            continue;
        }
        let header = archive.next_member()?.filter(|header| header.name == entry.name);
        header.ok_or_else(|| inconsistent(format!("the bundle has no {}", entry.name)))?;
        writer.append(&entry.name, entry.size, &mut archive)?;
    }
    Ok(writer.finish()?)
}

fn listed(source: &mut (impl Read + Seek)) -> Result<Manifest, ExportError> {
    source.seek(SeekFrom::Start(0)).map_err(ExportError::Spool)?;
    let mut archive = ArchiveReader::new(source);
    let header = archive.next_member()?.ok_or_else(|| ExportError::Inconsistent("the bundle is empty".into()))?;
    let bytes = archive.read_member(&header, limits::ENVELOPE_BYTES_MAX as u64)?;
    let (manifest, _) = Manifest::peek(&bytes).map_err(|error| ExportError::Inconsistent(error.to_string()))?;
    Ok(manifest)
}
