#!/bin/sh
# Makes a private CA and the certificates of a broker, its devices and its server, with openssl 1.1.1 or newer.
#
#   certificates.sh FOLDER ca                        the CA; its key stays in FOLDER/ca.key
#   certificates.sh FOLDER server NAME [ADDRESS...]  the broker's, for a host name and, if any, IP addresses
#   certificates.sh FOLDER client ID                 a device's; ID is its user name at the broker
#   certificates.sh FOLDER fleet _NAME               the fleet server's, a console's, Home Assistant's; likewise
#
# Names of the fleet's side begin with '_', which no device id does: so no device's certificate, whatever the device
# calls itself, has rights that flyball.acl gives to the fleet.
#
# Days of validity: DAYS (default 365; the CA's 3650). Existing keys of a broker or client are replaced.
set -eu
umask 077
# Ranges of letters mean ASCII.
LC_ALL=C
export LC_ALL

folder=${1:?folder}
kind=${2:?ca, server, client or fleet}
made= # NAME of the files that are being made

refuse() {
    echo "certificates.sh: $1" >&2
    exit 1
}

# Whatever happens, nothing half done stays behind.
clean() {
    [ -z "$made" ] || rm -f "$made.key.new" "$made.crt.new" "$made.csr" "$made.ext"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

# Silent when all is well; its words when it is not.
try_openssl() {
    said=$(openssl "$@" 2>&1) || refuse "openssl $1 failed:
$said"
}

# By renaming, so that nobody reads half a file.
finish() {
    mv "$made.key.new" "$made.key"
    mv "$made.crt.new" "$made.crt"
    chmod 644 "$made.crt"
}

sign() { # FILES EXTENSIONS [COMMON NAME]
    if [ ! -e ca.key ] || [ ! -e ca.crt ]; then
        refuse "$folder holds no CA (ca.key and ca.crt); first: certificates.sh $folder ca"
    fi
    made=$1
    try_openssl ecparam -name prime256v1 -genkey -noout -out "$made.key.new"
    try_openssl req -new -key "$made.key.new" -subj "/CN=${3:-$made}" -out "$made.csr"
    # All that a strict check (Python 3.13 and newer) wants to see.
    printf '%s\n' "$2" 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' \
        'subjectKeyIdentifier=hash' 'authorityKeyIdentifier=keyid' >"$made.ext"
    try_openssl x509 -req -in "$made.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -sha256 \
        -days "${DAYS:-365}" -extfile "$made.ext" -out "$made.crt.new"
    finish
}

plain() { # WORD: 1 to 64 letters, digits, '_', '-', as everywhere in the protocol
    case $1 in '' | *[!A-Za-z0-9_-]*) return 1 ;; esac
    [ ${#1} -le 64 ]
}

host() { # WORD: of letters, digits, '_', '-' and '.'; anything else would mean something to openssl
    case $1 in '' | *[!A-Za-z0-9_.-]* | [!A-Za-z0-9]* | *..*) return 1 ;; esac
    [ ${#1} -le 64 ]
}

address() { # WORD: what looks like IPv4 or IPv6; openssl reads it more closely
    case $1 in *[!0-9A-Fa-f.:]*) return 1 ;; *.* | *:*) return 0 ;; *) return 1 ;; esac
}

case ${DAYS-} in
*[!0-9]* | 0* | ??????*) refuse "DAYS=$DAYS: expected a number of days, 1 to 99999" ;;
esac

# Everything is looked at before anything is made.
case $kind in
ca) ;;
server)
    name=${3:?host name}
    shift 3
    host "$name" || refuse "$name: expected one host name, 1 to 64 letters, digits, '.', '_' and '-'"
    names="DNS:$name"
    for word in "$@"; do
        address "$word" || refuse "$word: expected an IP address; the host name comes first, and there is one"
        names="$names,IP:$word"
    done
    ;;
client)
    name=${3:?device id}
    case $name in
    _*) refuse "$name: no device id begins with '_'; for the fleet's side: certificates.sh $folder fleet $name" ;;
    -*) refuse "$name: a device id begins with a letter or a digit" ;;
    esac
    plain "$name" || refuse "$name: expected a device id, 1 to 64 letters, digits, '_' and '-'"
    # They are files of this folder, and a device of that name would replace them.
    case $name in ca | server) refuse "$name: is the name of other files in $folder; give the device another id" ;; esac
    ;;
fleet)
    name=${3:?name, with _ in front}
    case $name in
    _[A-Za-z0-9]*) ;;
    *) refuse "$name: expected '_' and then a letter or a digit, as in _fleet, so that it is no device's id" ;;
    esac
    plain "$name" || refuse "$name: expected 1 to 64 letters, digits, '_' and '-'"
    case $name in _all | _server) refuse "$name: stands for something else in topics; take another name" ;; esac
    ;;
*) refuse "unknown: $kind; expected ca, server, client or fleet" ;;
esac

mkdir -p "$folder"
cd "$folder"

case $kind in
ca)
    [ ! -e ca.key ] || refuse "$folder/ca.key is there already; all certificates hang on it"
    made=ca
    try_openssl ecparam -name prime256v1 -genkey -noout -out ca.key.new
    try_openssl req -x509 -new -key ca.key.new -sha256 -days "${DAYS:-3650}" -subj "/CN=Flyball fleet CA" \
        -addext keyUsage=critical,keyCertSign,cRLSign -out ca.crt.new
    finish
    ;;
server) sign server "subjectAltName=$names
extendedKeyUsage=serverAuth" "$name" ;;
*) sign "$name" "extendedKeyUsage=clientAuth" ;;
esac
