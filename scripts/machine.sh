# shellcheck shell=bash
# What quickstart and test both need to know of a machine. Sourced, from the top of the clone.

PATH=$PATH:/usr/sbin:/sbin # an ordinary user of Debian finds ip and iptables there only

say() { printf '%s\n' "$*" >&2; }

die() {
  say "${0##*/}: $*"
  exit 69
}

# Run a command as root, and say so; asks for a password only where somebody can answer.
as_root() {
  say "+ $*"
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    local ask=()
    [ -t 0 ] || ask=(-n)
    sudo "${ask[@]}" "$@" || die "that needs root; run it as root, then this again: $*"
  else
    die "that needs root and there is no sudo; run it as root, then this again: $*"
  fi
}

# install_packages PACKAGE...: with the distribution's own tool.
install_packages() {
  if command -v apt-get >/dev/null; then
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
  elif command -v dnf >/dev/null; then
    # RHEL and its kin have busybox in EPEL only.
    if [[ " $* " = *" busybox "* ]] && ! grep -q '^ID=fedora' /etc/os-release; then
      as_root dnf install -q -y epel-release
    fi
    as_root dnf install -q -y "$@"
  else
    die "neither apt-get nor dnf is here; install what these are in: $*"
  fi
}

# A container's bare root file system has no dynamic loader, whose path would be near the beginning.
have_static_busybox() {
  local path
  path=$(command -v busybox) && ! head -c 4096 "$path" | grep -q -a '/ld[-.]'
}

# missing_packages <TABLE: of the lines "PROGRAM DEBIAN-PACKAGE FEDORA-PACKAGE", those not here.
missing_packages() {
  local program debian fedora package
  while read -r program debian fedora; do
    case $program in
      busybox) ! have_static_busybox || continue ;;
      newest_python | system_python) ! $program >/dev/null || continue ;;
      *) ! command -v "$program" >/dev/null || continue ;;
    esac
    package=$debian
    command -v apt-get >/dev/null || package=$fedora
    printf '%s\n' "$package"
  done | sort -u
}

# system_python: the newest Python in /usr/bin that can run vxlab and make virtual environments.
system_python() {
  local minor
  for ((minor = 30; minor >= 11; minor--)); do
    if can_run_vxlab "/usr/bin/python3.$minor"; then
      echo "/usr/bin/python3.$minor"
      return
    fi
  done
  return 1
}

# newest_python: the system's, or else the newest on PATH.
newest_python() {
  local minor
  ! system_python || return 0
  for ((minor = 30; minor >= 11; minor--)); do
    if can_run_vxlab "python3.$minor"; then
      command -v "python3.$minor"
      return
    fi
  done
  return 1
}

can_run_vxlab() {
  command -v "$1" >/dev/null &&
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# python_packages: what brings a Python for vxlab on this distribution, as missing_packages wants it.
python_packages() {
  local default fedora=python3
  grep -q '^ID=fedora' /etc/os-release || fedora=python3.12 # RHEL 9's own is 3.9
  default=$(apt-cache policy python3 2>/dev/null | sed -n 's/^ *Candidate: \(3\.[0-9]*\).*/\1/p')
  case $default in
    3.[0-9] | 3.10) echo "python3.11-venv $fedora" ;; # Ubuntu 22.04
    *) echo "python3-venv $fedora" ;;
  esac
}

# make_venv PYTHON: .venv with a current pip, unless it is there and works where it lies.
make_venv() {
  if [ "$(cat .venv/made-for 2>/dev/null)" != "$PWD" ] || ! .venv/bin/python -c ''; then
    say "+ $1 -m venv .venv"
    "$1" -m venv --clear .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check --upgrade pip
    echo "$PWD" >.venv/made-for
  fi
}

# unless_done STAMP COMMAND...: run it, unless the last one in .venv had the same stamp.
unless_done() {
  local stamp=$1
  shift
  if [ "$(cat .venv/installed 2>/dev/null)" != "$stamp" ]; then
    rm -f .venv/installed
    say "+ $*"
    "$@"
    echo "$stamp" >.venv/installed
  fi
}

# digest FILE...: one SHA-256 over files and directories.
digest() {
  find "$@" -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c -64
}
