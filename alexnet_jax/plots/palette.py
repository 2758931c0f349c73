"""Colors of all figures, which stay apart for readers who do not see red or green.

Colors are those of Okabe and Ito (2008), except the towers' blue and orange and the bars of the
paper's Figure 4. Nothing is said by a color alone: a marker, a symbol or a word says it too.
"""

TOWERS = ("tab:blue", "tab:orange")  # towers 0 and 1
TRUE_CLASS, OTHER_CLASS = "#ffaaaa", "#aaaaff"  # bars (shownet.py:259)
RIGHT, WRONG = "#009e73", "#d55e00"
RIGHT_SYMBOL, WRONG_SYMBOL = "✓", "✗"
TRAINING, VALIDATION = "black", "#d55e00"
QUIET = "#555555"  # captions, names of files
