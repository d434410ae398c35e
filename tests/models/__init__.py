"""The shipped models themselves: what nobody may lose by them. All but `data` runs on frames drawn on the spot."""
