#!/bin/sh
# The release gate as a plain shell recipe; the other recipes in this directory call it.
#
#   gate.sh ARCHIVE BUNDLE POLICY TRUST [OUT]
#
# ARCHIVE  a release archive of AMC (.tar.gz), with its checksum beside it in ARCHIVE.sha256
# BUNDLE   the .amcbundle that is to be released
# POLICY   gatePolicy.json, with its signature beside it in gatePolicy.json.sig
# TRUST    the issuer's trust policy
# OUT      where decision.json, gate.xml (JUnit) and gate.sarif go; the working directory unless said
#
# Keep POLICY, TRUST and ARCHIVE.sha256 under review: whoever can change them decides.
# Ends with 0 when the gate allows, 1 when it denies, 2 when something is missing or wrong.
set -u

if [ $# -lt 4 ] || [ $# -gt 5 ]; then
    echo "usage: gate.sh ARCHIVE BUNDLE POLICY TRUST [OUT]" >&2
    exit 2
fi
archive=$1 bundle=$2 policy=$3 trust=$4 out=${5:-.}

for file in "$archive" "$archive.sha256" "$bundle" "$policy" "$trust"; do
    if [ ! -f "$file" ]; then
        echo "gate.sh: there is no $file" >&2
        exit 2
    fi
done

# The checksum is of the bytes, whatever the file is called here.
wanted=$(cut -d ' ' -f 1 < "$archive.sha256")
found=$(sha256sum < "$archive" | cut -d ' ' -f 1)
if [ "$wanted" != "$found" ]; then
    echo "gate.sh: $archive has the SHA-256 $found, and $wanted was pinned; it is not unpacked" >&2
    exit 2
fi

tools=$(mktemp -d) || exit 2
trap 'rm -rf "$tools"' EXIT
mkdir -p "$out" && tar -xzf "$archive" -C "$tools" || exit 2
amc=$(find "$tools" -type f -name amc | head -n 1)
if [ -z "$amc" ]; then
    echo "gate.sh: $archive holds no amc" >&2
    exit 2
fi

"$amc" gate --json --bundle "$bundle" --policy "$policy" --trust "$trust" \
    --junit "$out/gate.xml" --sarif "$out/gate.sarif" > "$out/decision.json"
status=$?
# The same once more for whoever reads the job's log.
if [ "$status" -le 1 ]; then
    "$amc" gate --bundle "$bundle" --policy "$policy" --trust "$trust"
else
    cat "$out/decision.json" >&2
fi
exit "$status"
