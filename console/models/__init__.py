"""What the console itself remembers."""

from .backtest import PolicyBacktest
from .channel import Channel, Delivery
from .examination import Examination
from .rollup import CallHour, FoldedHour, RunHour

__all__ = ["CallHour", "Channel", "Delivery", "Examination", "FoldedHour", "PolicyBacktest", "RunHour"]
