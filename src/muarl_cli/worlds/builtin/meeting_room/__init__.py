"""An office's facility desk: meeting rooms."""
