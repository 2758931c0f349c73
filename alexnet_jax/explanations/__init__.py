"""Why a class: occlusion, gradient and Grad-CAM maps; and what units answer to most strongly."""
