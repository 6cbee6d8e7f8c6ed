SELECT U&":a", U&'\0041', f(x := :y) +-- c
:z