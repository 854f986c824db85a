# Source it (bash and zsh anywhere, sh from the repository root): `. tools/ros_env.sh`.
# Sets this shell up for .venv (with LIGHT=1: .venv-light): a Python with rclpy, the messages and ser_ros.
# shellcheck shell=sh disable=SC1091,SC2128,SC3028

# _ser_prepend VARIABLE FOLDER: puts FOLDER first in VARIABLE, unless it contains it.
_ser_prepend() {
    _ser_value=
    eval "_ser_value=\${$1:-}"
    case ":$_ser_value:" in
        *":$2:"*) ;;
        *) export "$1=$2${_ser_value:+:$_ser_value}" ;;
    esac
}

_ser_environment() {
    if [ ! -f "$_ser_venv/stamps/package" ]; then
        echo "ros_env.sh: no complete environment in $_ser_venv: run tools/setup.sh" >&2
        return 1
    fi
    if [ ! -d "$_ser_venv/share/rclpy" ] && [ -z "${ROS_DISTRO:-}" ]; then
        echo "ros_env.sh: $_ser_venv is based on a ROS 2 that is not sourced: source it first" >&2
        return 1
    fi
    . "$_ser_venv/bin/activate"
    if [ -d "$_ser_venv/share/rclpy" ]; then
        # ROS 2 from PyPI: it is installed in the virtual environment's own prefix.
        _ser_prepend AMENT_PREFIX_PATH "$_ser_venv"
        _ser_prepend CMAKE_PREFIX_PATH "$_ser_venv"
        # Python adds the wheels' libraries to LD_LIBRARY_PATH at its start, unless this variable
        # says that a parent process did; the parent may be of another environment.
        unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
        export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
        export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
    fi
    _ser_prepend AMENT_PREFIX_PATH "$_ser_venv/ros/install"
    _ser_prepend CMAKE_PREFIX_PATH "$_ser_venv/ros/install"
    _ser_prepend LD_LIBRARY_PATH "$_ser_venv/ros/install/lib"
}

# In sh, a sourced file cannot find its own path.
_ser_venv=$(cd "$(dirname "${BASH_SOURCE:-$0}")/.." 2>/dev/null && pwd -P)
[ -f "$_ser_venv/tools/ros_env.sh" ] || _ser_venv=$(pwd -P)
_ser_venv=$_ser_venv/.venv${LIGHT:+-light}

if _ser_environment; then
    unset -f _ser_environment _ser_prepend
    unset _ser_venv _ser_value
else
    unset -f _ser_environment _ser_prepend
    unset _ser_venv _ser_value
    false
fi
