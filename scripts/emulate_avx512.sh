#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the tests of the kernels on an emulated processor that has every AVX-512 table of src/kernels, for machines that
# have not: Bochs boots a small Linux whose only programs are the tests, as they are compiled. Fails when a test does,
# and when a table was not among those tested.
# Nothing is installed: Debian's packages are unpacked in build/emulate, from the mirror that apt has. They are of
# Debian 13 on any Debian, for the Bochs of Debian 12 has no bf16 and an XSAVE that Linux turns down.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=trixie
packages=(bochs bochs-term bochsbios busybox-static cpio isolinux syslinux-common xorriso)
build=$PWD/build/emulate
tree=$build/$suite
limit_s=600  # of processor time; it takes 50

# --- Packages --------------------------------------------------------------------------------------

# apt with lists of its own: the machine's are left as they are, and any user may run it.
apt_alone() {
  local command=$1
  shift
  "$command" -q -o Dir::Etc::SourceList="$build/apt/debian.sources" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State="$build/apt" -o Dir::State::status=/dev/null -o Dir::Cache="$build/apt" \
    -o APT::Architecture=amd64 -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 "$@"
}

fetch_packages() {
  local mirror kernel
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' |
           sort | uniq -c | sort -rn | awk 'NR == 1 {print $2}')
  if [ -z "$mirror" ]; then
    echo "emulate_avx512.sh: expected apt to know a mirror of Debian, got none (is it Debian? apt-get update?)" >&2
    return 1
  fi
  mkdir -p "$build/apt/lists/partial" "$build/apt/archives/partial"
  cat > "$build/apt/debian.sources" <<END
Types: deb
URIs: $mirror
Suites: $suite
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
  apt_alone apt-get update
  apt_alone apt-get install -y --download-only --no-install-recommends "${packages[@]}"
  # The kernel alone: what it depends on only serves to install it.
  kernel=$(apt_alone apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" {print $2; exit}')
  (cd "$build/apt/archives" && apt_alone apt-get download "$kernel")
  rm -rf "$tree.part"
  for package in "$build"/apt/archives/*.deb; do dpkg-deb -x "$package" "$tree.part"; done
  rm -rf "$build/apt" "$tree"
  mv "$tree.part" "$tree"
}

# A program of the tree, with the libraries of the tree.
from_tree() {
  local program=$1
  shift
  "$tree/usr/lib64/ld-linux-x86-64.so.2" --library-path "$tree/usr/lib/x86_64-linux-gnu" "$tree/usr/bin/$program" "$@"
}

quietly() {  # says what a command printed only if it failed; not with ||, for -e to hold inside
  local status
  set +e
  (set -e; "$@") > "$build/log" 2>&1
  status=$?
  set -e
  [ "$status" -eq 0 ] || cat "$build/log" >&2
  return "$status"
}

mkdir -p "$build"
if [ ! -d "$tree" ]; then
  echo "fetching ${packages[*]} and a kernel"
  quietly fetch_packages
fi

# --- Tests: static, since the machine has no libraries ------------------------------------------------

# As a library of C++ alone: FindMPI tries to link C, and MPI has no static library.
tests=()
for source in tests/kernels/*_test.cpp; do tests+=("kernels_$(basename "$source" .cpp)"); done
quietly cmake --preset release -B "$build" -DMEMLAYERS_TORCH=OFF -DMEMLAYERS_TESTS=ON \
  -DMEMLAYERS_TEST_OPTIMIZATION=-O2 \
  -DCMAKE_CXX_STANDARD_LIBRARIES=-static
quietly cmake --build "$build" -j "${JOBS:-2}" --target "${tests[@]}"

# --- A disk that boots into them ------------------------------------------------------------------------

rm -rf "$build/root" "$build/disk"
mkdir -p "$build"/root/{dev,proc,tmp,tests} "$build/disk"
cp "$tree/usr/bin/busybox" "$build/root/busybox"
for test in "${tests[@]}"; do strip -o "$build/root/tests/$test" "$build/$test"; done
cat > "$build/root/init" <<'END'
#!/busybox sh
/busybox mount -t devtmpfs dev /dev
/busybox mount -t proc proc /proc
failed=0
for test in /tests/*; do "$test" --gtest_color=no || failed=$((failed + 1)); done
echo "emulated: $failed programs failed"
/busybox sleep 1  # the serial line is slow
/busybox reboot -f
END
chmod +x "$build/root/init"
(cd "$build/root" && find . | from_tree cpio -o -H newc --quiet > "$build/disk/initrd")
cp "$tree"/boot/vmlinuz-* "$build/disk/vmlinuz"
cp "$tree/usr/lib/ISOLINUX/isolinux.bin" "$tree/usr/lib/syslinux/modules/bios/ldlinux.c32" "$build/disk"
kernel=(console=ttyS0,115200 loglevel=2)
kernel+=(panic=-1 reboot=t)  # the triple fault ends Bochs
# Bochs cannot come back from system management mode, where ACPI goes, in 5-level paging.
kernel+=(acpi=off no5lvl)
# Bochs has no MISC_ENABLE, so Linux drops fast copies but not fast short ones, and its memmove then overruns. It has no
# counters of frequency either.
kernel+=(clearcpuid=fsrm,aperfmperf)
kernel+=(tsc_early_khz=10000)  # what `ips` below gives, not what the model's cpuid says
kernel+=(nokaslr mitigations=off lsm= cryptomgr.notests)  # only for time
cat > "$build/disk/isolinux.cfg" <<END
DEFAULT linux
LABEL linux
  KERNEL vmlinuz
  INITRD initrd
  APPEND ${kernel[*]}
END
quietly from_tree xorriso -as mkisofs -o "$build/disk.iso" -b isolinux.bin -c boot.cat -no-emul-boot \
  -boot-load-size 4 -boot-info-table "$build/disk"

# --- The machine ------------------------------------------------------------------------------------------

# Linux finds the state of AMX without its switch, so AMX is left out. `ips` is instructions a second of the machine's
# clock: the lower, the fewer are spent on waiting for the serial line.
cat > "$build/bochsrc" <<END
cpu: model=sapphire_rapids, exclude_features="amx,amx_int8,amx_bf16", ips=10000000, reset_on_triple_fault=0
clock: sync=none, time0=utc
memory: guest=512, host=512
romimage: file="$tree/usr/share/bochs/BIOS-bochs-latest"
vgaromimage: file="$tree/usr/share/bochs/VGABIOS-lgpl-latest"
ata0-master: type=cdrom, path="$build/disk.iso", status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=/dev/tty
display_library: term
panic: action=fatal
log: "$build/bochs.log"
END
machine() {
  ulimit -t "$limit_s"
  export LTDL_LIBRARY_PATH=$tree/usr/lib/x86_64-linux-gnu/bochs/plugins TERM=vt100
  from_tree bochs-bin -q -f "$build/bochsrc" > "$build/bochs.out" 2>&1
}
export -f machine from_tree
export build tree limit_s
# Bochs writes the serial line to its terminal; `script` makes one and keeps a copy. Its own exit status says nothing.
started=$SECONDS
script -qefc "bash -c machine" "$build/serial" < /dev/null || true
echo "emulated for $((SECONDS - started)) s"

fail() {
  echo "emulate_avx512.sh: $1 (see build/emulate/serial, bochs.log, bochs.out)" >&2
  exit 1
}
end=$(grep -aoE 'emulated: [0-9]+ programs failed' "$build/serial") || fail "expected the tests to end, they did not"
for source in src/kernels/avx512*.cpp; do
  isa=$(basename "$source" .cpp)
  grep -qaE "^\[ +(OK|FAILED) +\] .*/$isa \(" "$build/serial" || fail "expected tests of $isa, got none"
done
[ "$end" = "emulated: 0 programs failed" ] || fail "expected every test to pass, got $end"
