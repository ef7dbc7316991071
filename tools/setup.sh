# Sourced by ./run, ./test and .ci/run: brings a Debian 12 machine that has only git and a shell to where it can build.
# Nothing here needs the network when nothing is missing: apt-get is called only for packages that dpkg does not know.
# shellcheck shell=bash

# millrace_packages PURPOSE...: the packages of these purposes, from tools/packages.
millrace_packages() {
    local purpose package rest
    while read -r purpose package rest; do
        case " $* " in *" $purpose "*) echo "$package" ;; esac
    done < <(grep -v '^#' "$top/tools/packages")
}

# millrace_need PURPOSE...: installs what is missing of them; leaves with 69 and the command to type when it cannot.
millrace_need() {
    local missing=() package sudo=()
    for package in $(millrace_packages "$@"); do
        case "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null)" in *' installed') ;; *) missing+=("$package") ;; esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            echo "Missing Debian packages, and neither root nor sudo here. Type as root: apt-get install ${missing[*]}" >&2
            exit 69
        fi
        sudo=(sudo)
    fi
    echo "Installing ${#missing[@]} Debian packages: ${missing[*]}" >&2
    mkdir -p "$top/build"
    case " ${missing[*]} " in *' rabbitmq-server '* | *' mosquitto '*) millrace_keep_stopped "${sudo[@]}" ;; esac
    local worked=yes
    millrace_apt "${sudo[@]}" -- "${missing[@]}" >"$top/build/setup.log" 2>&1 || worked=
    [ -z "${millrace_policy_written:-}" ] || "${sudo[@]}" rm -f /usr/sbin/policy-rc.d
    if [ -z "$worked" ]; then
        tail -n 15 "$top/build/setup.log" >&2
        echo "Could not install: ${missing[*]} (all of it is in build/setup.log)" >&2
        exit 69
    fi
}

# millrace_apt [sudo] -- PACKAGE...
millrace_apt() {
    local before=()
    while [ "$1" != -- ]; do before+=("$1"); shift; done
    shift
    # A list of packages that cannot be refreshed may still be good enough.
    "${before[@]}" apt-get -q update || true
    "${before[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
        -o Dpkg::Options::=--force-confold install "$@" </dev/null
}

# The peer brokers would start at once and take our ports: a masked unit, or no start at all where there is no systemd.
millrace_keep_stopped() {
    if [ -d /run/systemd/system ]; then
        "$@" systemctl mask rabbitmq-server.service mosquitto.service >/dev/null 2>&1 || true
    elif [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' | "$@" tee /usr/sbin/policy-rc.d >/dev/null
        "$@" chmod 755 /usr/sbin/policy-rc.d
        millrace_policy_written=yes
    fi
}

# millrace_build ARGUMENT...: make, with one line that moves; the compiler's words only when it fails.
millrace_build() {
    local log="$top/build/make.log" count=0 line
    mkdir -p "$top/build"
    if make -C "$top" --no-print-directory -j "$(nproc)" "$@" 2>&1 | while IFS= read -r line; do
        printf '%s\n' "$line"
        [ "${line:0:2}" = '  ' ] || continue
        count=$((count + 1))
        if [ -t 2 ]; then
            printf '\rBuilding ... %d %-60.60s' "$count" "${line#  }" >&2
        elif [ "$count" = 1 ]; then
            echo "Building ..." >&2
        fi
    done >"$log"; then
        [ ! -t 2 ] || printf '\r%-80s\r' '' >&2
        return 0
    fi
    [ ! -t 2 ] || printf '\n' >&2
    grep -vE '^  (CC|AR|LD) ' "$log" | head -n 40 >&2
    echo "The build failed (all of it is in build/make.log)" >&2
    exit 70
}
