"""Word lists for finding people in maintenance notes: what is a name here, and what only looks like one."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SURNAMES = frozenset(
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎潘"
    "杜戴夏钟汪田姜范石姚谭廖邹熊金陆郝崔邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊殷洪涂翟倪颜"
    "柳岳齐鲁葛毕聂焦向祝耿关路祁严温康尤裴詹柯左纪梅童霍申牛俞甘凌房骆欧岑屈鲍游阮包晏辛管柴"
)
"""The hundred and some most frequent ones, without those that begin common words of a plant."""
COMPOUND_SURNAMES = ("欧阳", "司马", "上官", "诸葛", "慕容", "皇甫", "尉迟", "令狐", "夏侯", "司徒")
FAMILIAR_SURNAMES = frozenset(
    "王李张刘陈杨赵黄周吴徐孙胡朱林何郭马罗梁宋郑谢韩唐冯董程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛潘杜戴夏汪"
    "田姜谭廖邹熊陆崔秦"
)
"""After 老, 小, 阿: those that make no other word with it."""
NO_NAMES = _words("""
张力 张开 张紧 张角 周期 周边 周围 周向 周一 周二 周三 周四 周五 周六 周日 周末 周检 程序 程度 程控 叶轮 叶片
许可 许多 万用 万向 万能 黄油 黄色 黄铜 黄灯 何处 何时 范围 田间 龙门 孔径 孔板 马达 马上 马力 钟表 夏季 夏天
石墨 石油 石英 高温 高压 高速 高低 高度 高频 高级 高位 高于 高报 高点 高处 金属 金工 金相 管路 管道 管理 管线
管工 管壁 包装 包括 包工 严重 严格 严密 温度 温升 温控 常规 常温 常开 常闭 常见 罗茨 罗纹 江水 江苏 江西 沈阳
郑州 徐州 苏州 韩国 唐山 陈旧 陈列 董事 杜绝 武汉 文件 文丘 文档 路径 路由 关闭 关机 关键 关于 关停 关注 左侧
左右 左边 齐全 齐平 游标 游隙 房间 申请 申报 梅花 牛油 向上 向下 向右 向左 向前 向内 雷达 雷电 雷击 段落 万一
凌晨 康明 史密 林德 林业 林肯 易损 易燃 易于 洪水 涂层 涂油 涂抹 焦化 焦味 焦糊 纪录 纪要 顾客 毕竟 辛烷 甘油
柴油 柴发 童锁 左旋 汤姆 梁柱 柳州 曹妃 水泵 钱江 葛洲 连班 白班 丁腈 丁基 叶绿 江南 金刚 马氏 梅雨 夏令 秦皇
熊猫 贺德 贺尔 欧姆 欧洲 鲁班 谢绝 谢谢 宋体 文字 文本 温湿 石棉 岳阳 常州 温州 柳工 万吨 万元 万次 万转 齐活
易坏 任务 管子 管卡 包胶 包边 关阀 关泵 路灯 高中 高了 高出 周报 李子
""")
"""Two characters that begin like a name and are none."""
FIRST_NAMES = _words("""
james robert john michael david william richard joseph thomas christopher charles daniel matthew anthony steven
paul andrew joshua kenneth kevin brian george timothy ronald edward jason jeffrey ryan jacob nicholas gary eric
jonathan stephen larry justin scott brandon benjamin samuel gregory alexander patrick jack dennis jerry tyler
aaron jose adam nathan henry zachary douglas peter kyle noah ethan jeremy walter christian keith roger terry
austin sean gerald carl harold dylan arthur lawrence jordan jesse bryan billy bruce gabriel joe logan alan juan
albert willie elijah wayne randy vincent mason roy ralph bobby russell philip eugene mary patricia jennifer
linda elizabeth barbara susan jessica karen sarah lisa nancy sandra betty ashley emily kimberly margaret donna
michelle carol amanda melissa deborah stephanie rebecca sharon laura cynthia dorothy amy kathleen angela shirley
emma brenda pamela nicole anna samantha katherine christine helen debra rachel carolyn janet maria catherine
heather diane olivia julie joyce victoria ruth virginia lauren kelly christina joan evelyn judith andrea hannah
megan cheryl jacqueline martha madison teresa gloria sara janice ann kathryn abigail sophia frances jean alice
judy isabella julia mike dave bob tom steve jim bill dan matt tony chris nick andy ben sam greg alex pat tim ron
ed jeff ray ken rob rick frank mark will max leo oscar hugo lars sven jan hans klaus juergen jürgen wolfgang uwe
stefan heinz karl ulrich dieter ahmed mohammed muhammad ali omar hassan fatima aisha raj ravi amit priya anil
sunil sanjay vijay suresh ramesh pedro carlos luis miguel jorge fernando pablo diego sofia carmen lucia pierre
jacques luc marie claire sophie ivan sergei dmitri olga svetlana yuri igor piotr marek tomasz pavel liam owen
connor declan fiona nigel graham colin neil ian craig gavin stuart trevor derek clive barry kurt günter
""")
"""First names that are seldom anything else."""
AMBIGUOUS = _words("""
mark will bill frank rob max ray jack grace may rose art guy jordan virginia jean mason logan jan pat drew rod
chuck dale victoria madison austin christian carol gloria frances ann ed sam ali don gene christine jesse ken
ron
""")
"""First names that are also words, tools or places: they count with a surname or after a cue."""
PINYIN_SURNAMES = _words("""
wang li zhang liu chen yang zhao huang zhou wu xu sun hu zhu gao lin he guo ma luo liang song zheng xie han tang
feng dong xiao cheng cao yuan deng fu shen zeng peng lv lu su jiang cai jia ding wei xue ye yan pan du dai xia
zhong tian ren fan fang shi yao tan liao zou xiong jin hao kong bai cui kang mao qiu qin gu hou shao meng long
wan duan qian yin
""")
"""Chinese surnames as they are written in English notes; they count with a given name."""
PLANT_WORDS = _words("""
pump motor valve bearing gearbox seal filter sensor line press mixer fan conveyor oil coolant shaft belt
coupling compressor boiler tank robot drive panel alarm shift maintenance operator operations operation
production quality safety engineering management support service warehouse stores logistics control plant unit
area cell station machine machining spindle tool chuck lathe mill hopper feeder dryer cooler heater blower
turbine generator transformer breaker relay fuse plc hmi scada vfd inverter encoder cable hose pipe flange
gasket lubrication grease monday tuesday wednesday thursday friday saturday sunday january february march april
june july august september october november december north south east west left right upper lower inlet outlet
inboard outboard drive-end hydraulics hydraulic pneumatic electrical mechanical instrument instruments again
after before since please note check checked replaced repaired cleaned found no none ok yes today tomorrow
yesterday the this that it all new old spare part parts order stock supplier vendor manual procedure step
section page version release siemens bosch festo abb skf fag nsk timken schneider rockwell omron keyence fanuc
kuka yaskawa mitsubishi danfoss grundfos wilo ksb sulzer flowserve eaton parker rexroth sick turck balluff
pepperl endress hauser emerson honeywell yokogawa sew lenze nord flender atlas copco kaeser shell mobil castrol
kluber klüber loctite weg crane deere bradley walker allen martin sprocket betts stephenson murphy drain cock
box clamp plug watch plan report reports email phone tel
""")
"""Capitalised words of a plant, makers among them: no surnames."""
COMPANIES = frozenset(
    name.replace("_", " ")
    for name in _words("""
John_Crane John_Deere Allen_Bradley Allen-Bradley James_Walker Robert_Bosch Martin_Sprocket Thomas_&_Betts
Thomas_Betts Oliver_Valves Charles_Austen Frank_Mohn Karl_Storz Murphy_switch Max_Frank Jack_Shaft Carl_Zeiss
Karl_Dungs Hans_Turck George_Fischer Georg_Fischer Kelly_bar Paul_Mueller Emma_Filter Henry_Pratt Scott_safety
Ray-Ban Stanley Douglas_fir
""")
)
"""Makers and things that are named like a person."""
