#!/bin/bash
# run.sh PROGRAM [ARGUMENT...]: runs PROGRAM as root under Debian's kernel, which has ESP, XFRM interfaces and netem, in
# qemu by software emulation. It needs neither KVM nor privileges. The guest has no network except its own
# namespaces. The script prints PROGRAM's output while it runs and exits with PROGRAM's status, so that cargo can use it
# as a runner: see `make test-kernel`.
#
#   GUEST_FILES    additional programs and files for the guest, at the same path, with their libraries; space separated
#   GUEST_ENV      names of environment variables to pass to the guest
#   GUEST_TIMEOUT  the longest run of the guest, in seconds (540)
#
# Exit status: PROGRAM's; 124 after the timeout; 125 if the guest cannot start or dies (its console is printed).
set -u -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${CARGO_TARGET_DIR:-$here/../../target}/kernel
# The guest's programs are copied from this machine: those that the product runs, and those that the tests run.
packages="bash coreutils util-linux mount procps grep sed findutils iproute2 nftables tcpdump curl
 libstrongswan libstrongswan-standard-plugins libstrongswan-extra-plugins libcharon-extra-plugins strongswan-libcharon
 strongswan-charon strongswan-swanctl libnss3 libnss3-tools"

die() { echo "kernel: $*" >&2; exit 125; }
[ $# -gt 0 ] || die "name a program"
for tool in qemu-system-x86_64 busybox dpkg-deb apt-get strip; do
  command -v $tool >/dev/null || die "$tool is missing: run make install"
done
# shellcheck disable=SC2086 # package names, split on purpose
dpkg-query -W $packages >/dev/null || die "run make install"
mkdir -p "$work" && work=$(cd "$work" && pwd) || die "cannot create $work"

# The kernel is downloaded and unpacked, never installed. Its file name contains the version.
exec 9>"$work/lock"
flock 9
kernel_package() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }'; }
package=$(kernel_package)
kernel=$(ls -td "$work"/linux-image-*.deb 2>/dev/null | head -n 1)
if [ -z "$kernel" ]; then
  [ -n "$package" ] || { apt-get -q update >&2; package=$(kernel_package); }
  [ -n "$package" ] || die "Debian's package lists name no kernel: run apt-get update"
  rm -rf "$work/download" && mkdir "$work/download" || die "cannot write to $work"
  (cd "$work/download" && { apt-get -q download "$package" || { apt-get -q update && apt-get -q download "$package"; }; } >&2 &&
    dpkg-deb -x ./*.deb unpacked && mv unpacked "../$(basename ./*.deb)") || die "$package cannot be downloaded"
  rm -rf "$work/download"
  kernel=$(ls -td "$work"/linux-image-*.deb | head -n 1)
fi
flock -u 9
version=$(basename "$kernel"/boot/vmlinuz-*)
version=${version#vmlinuz-}

run=$(mktemp -d "$work/run.XXXXXX") || die "cannot create a directory in $work"
root=$run/root children=
cleanup() {
  local pid
  for pid in $children; do kill "$pid" 2>/dev/null; done
  wait
  rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The guest's root is an initramfs: it needs no disk, no disk driver, and no loop mount on this machine.
mkdir -p "$root"/{usr/{bin,sbin,lib,lib64,libexec},proc,sys,dev,run,tmp,root,etc,var/lib,guest}
chmod 1777 "$root/tmp"
ln -s /run "$root/var/run"
for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$root/$dir"; done
# Copies the files whose paths it reads. Directories are not copied, since they would replace the links made above.
add() {
  sed 's,^/,,' | tar -C / -c --ignore-failed-read --no-recursion "$@" -T - 2>/dev/null |
    tar -C "$root" -x --no-same-owner --keep-directory-symlink
}
# Copies the libraries to which the programs whose paths it reads are linked.
add_libraries() {
  xargs -r -d '\n' ldd 2>/dev/null |
    awk '$2 == "=>" && $3 ~ "^/" { print $3 } NF == 2 && $1 ~ "^/" { print $1 }' | sort -u | add -h
}
# shellcheck disable=SC2086
dpkg -L $packages | grep -vE '^/usr/share/' | sort -u | while read -r path; do
  [ -d "$path" ] || echo "$path"
done >"$run/files"
add <"$run/files"
# Libraries that ldd does not list: glibc opens libgcc_s when a thread ends, and OpenSSL opens its providers.
ls -d /etc/{passwd,group,nsswitch.conf,protocols,services,ssl/openssl.cnf,ld.so.cache} \
  /lib/x86_64-linux-gnu/libgcc_s.so.1 /usr/lib/x86_64-linux-gnu/ossl-modules/* 2>/dev/null | add -h

program=$(realpath "$(type -P -- "$1")") || die "no such program: $1"
shift
# shellcheck disable=SC2086
find "$program" ${GUEST_FILES:-} ! -type d >"$run/more" || die "GUEST_FILES: something is missing"
add -h <"$run/more"
# Without debug information the files have a tenth of the size, which matters on an emulated processor.
while read -r path; do
  ! [ -x "$root$path" ] || strip --strip-debug "$root$path" 2>/dev/null
done <"$run/more"
grep -hE '/s?bin/|\.so|/lib/ipsec/' "$run/files" | cat - "$run/more" | add_libraries
cp "$(command -v busybox)" "$root/usr/bin/busybox" && install -m 755 "$here/init" "$root/init" || die "no init"
# busybox provides every command that is missing, and the modprobe that the kernel calls to load a module.
busybox --list | while read -r applet; do
  [ -e "$root/usr/bin/$applet" ] || [ -e "$root/usr/sbin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
done
ln -sf ../bin/busybox "$root/usr/sbin/modprobe"
modules=lib/modules/$version/kernel
(cd "$kernel" && find "$modules"/{net,crypto,lib,arch/x86/crypto} "$modules/drivers/net" -name '*.ko' ! -path '*/ethernet/*' |
  tar -c "lib/modules/$version/modules.builtin" -T -) | tar -C "$root" -x --no-same-owner --keep-directory-symlink ||
  die "the kernel's modules cannot be copied"
busybox depmod -b "$root" "$version" || die "depmod failed"
{
  for name in ${GUEST_ENV:-}; do [ -z "${!name+x}" ] || echo "export $name=${!name@Q}"; done
  arguments=("$@")
  echo "mkdir -p ${PWD@Q}; cd ${PWD@Q}; exec ${program@Q} ${arguments[*]@Q}"
} >"$root/guest/run"
# The initramfs is not compressed, because an emulated processor decompresses slowly.
(cd "$root" && find . | busybox cpio -o -H newc -R 0:0 2>/dev/null) >"$run/initramfs" || die "cpio failed"
rm -rf "$root"

# Three serial ports carry the kernel's console, PROGRAM's output and its exit status. They are files, because qemu
# would leave this script's own output in non-blocking mode, also for other processes that share it. A port transfers
# about 80 kB per second.
: >"$run/output"
begin=$SECONDS
timeout -k 5 "${GUEST_TIMEOUT:-540}" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
  -accel tcg,thread=multi -cpu max -smp 2 -m 2048 \
  -kernel "$kernel/boot/vmlinuz-$version" -initrd "$run/initramfs" -append "console=ttyS0 quiet panic=-1" \
  -serial "file:$run/console" -serial "file:$run/output" -serial "file:$run/status" \
  </dev/null 2>"$run/qemu" 9>&- &
qemu=$!
tail -f -c +1 -s 0.2 --pid=$qemu "$run/output" &
children="$qemu $!"
wait $qemu
ended=$?
wait
children=
status=$(cat "$run/status" 2>/dev/null)
echo "kernel: Linux $version, initramfs $(($(stat -c %s "$run/initramfs") >> 20)) MiB, $((SECONDS - begin)) s," \
  "exit status ${status:-none}" >&2
[[ $status =~ ^[0-9]+$ ]] && exit "$status"
{ echo "kernel: no exit status (qemu: $ended)"; cat "$run/qemu"; tail -n 40 "$run/console"; } >&2
[ $ended = 124 ] && exit 124
exit 125
